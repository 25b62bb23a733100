"""A run, from its settings to what it leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.state import PartialState
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.conversion import require_new, unlimited
from florence2_server.engine.checkpoint.loading import Checkpoint, load
from peft import PeftModel
from torch import Tensor
from transformers import TrainerState, set_seed

from training.finetune.dataset import ExampleDataset, embed_all, embedding_gigabytes
from training.finetune.encoding import EncodedExample, ExampleEncoder, ImageLoader, count_repetitive
from training.finetune.errors import DataError, SettingError
from training.finetune.examples import Example, split
from training.finetune.formats import read_examples
from training.finetune.measures import default_measure, has_boxes
from training.finetune.model import TrainedModel, base_model, prepare_model
from training.finetune.output import Result, save_results
from training.finetune.resuming import record_settings, resumed_checkpoint, state_folder
from training.finetune.settings import Settings
from training.finetune.trainer import make_trainer, metrics_of, training_arguments

_logger = logging.getLogger(__name__)


class Data(NamedTuple):
    """The examples of a run."""

    training: list[Example]
    validation: list[Example]


def finetune(settings: Settings) -> Result:
    """Train, and save the best checkpoint.

    Raises:
        FinetuneError: a setting or the data is wrong.
        CheckpointError: the base cannot be loaded.
    """
    state = resumed_checkpoint(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = read_data(settings)
    measure = _measure(settings, data)
    _check(settings)
    checkpoint = load(unlimited(EngineConfig(checkpoint=settings.checkpoint, device="cpu", dtype="float32")))
    encoder = ExampleEncoder(checkpoint)
    encoded = [[encoder.encode(example) for example in examples] for examples in data]
    warn_of_answers(encoded, checkpoint, settings, measure)
    set_seed(settings.seed)  # the adapter's initial weights are random
    model = prepare_model(checkpoint, settings)
    _logger.info("%d training and %d validation examples, %s", *map(len, data), _trainable(model))
    datasets = _datasets(base_model(model), checkpoint, settings, encoded)
    metrics = metrics_of(data.validation, encoder, measure)
    arguments = training_arguments(
        settings, measure, is_resumed=state is not None, decodes=not datasets[0].are_embedded
    )
    trainer = make_trainer(model, checkpoint, arguments, datasets, metrics, measure)
    if trainer.is_world_process_zero():
        record_settings(settings)
    trainer.train(resume_from_checkpoint=str(state) if state else None)
    result = _result(trainer.state, measure, data)
    if trainer.is_world_process_zero():
        save_results(model, checkpoint, settings, result)
        _logger.info("saved in %s", " and ".join(filter(None, (settings.output, settings.merged))))
        report(result)
    return result


def report(result: Result) -> None:
    """Log the result, and a warning if training has not improved the base."""
    before, after = result.before, result.after
    shown = ["unknown" if value is None else f"{value:.4g}" for value in (before, after)]
    _logger.info("%s: %s before, %s after %d steps", result.measure, *shown, result.step)
    if before is not None and after is not None and (after >= before if result.measure == "loss" else after <= before):
        _logger.warning(
            "no evaluation gave a better result than the base: try more steps, another learning rate%s",
            "" if result.measure == "loss" else ", or --measure loss",
        )


def read_data(settings: Settings) -> Data:
    """The training and validation examples.

    Raises:
        FinetuneError: a file is missing or wrong.
    """
    form, prompt, classes = settings.format, settings.prompt, settings.classes
    training = read_examples(settings.data, "data", form, prompt, classes)
    if (fraction := settings.validation_fraction) is None:
        return Data(training, read_examples(settings.validation, "validation", form, prompt, classes))
    data = Data(*split(training, fraction, settings.seed))
    if not data.training:
        raise DataError(Path(settings.data).name, "images", 1, "at least 2, one of them for validation")
    return data


def _check(settings: Settings) -> None:
    """Find out before the work begins what would otherwise end it after minutes.

    Raises:
        SettingError: the precision needs a GPU, or nothing can be written to the output folder.
        CheckpointError: the folder for the merged checkpoint has content.
    """
    if settings.precision == "float16" and (settings.device == "cpu" or not torch.cuda.is_available()):
        raise SettingError("precision", "float16", "float32 or bfloat16 on a CPU")
    if settings.merged:
        require_new(Path(settings.merged))
    try:
        state_folder(settings).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError("output", settings.output, f"a folder that can be written to ({error})") from None


def _measure(settings: Settings, data: Data) -> str:
    if settings.measure == "auto":
        return default_measure(data.validation)
    if settings.measure == "f1" and not all(map(has_boxes, data.validation)):
        raise SettingError("measure", "f1", "exact, anls or loss: some answers are not boxes")
    return settings.measure


def warn_of_answers(
    encoded: list[list[EncodedExample]], checkpoint: Checkpoint, settings: Settings, measure: str
) -> None:
    """Warn of answers that cannot be generated: with the checkpoint's settings, or in an evaluation.

    Args:
        encoded: the training and the validation examples.
        checkpoint: the base.
        settings: the run's.
        measure: its measure; no answers are generated for the loss.
    """
    training, validation = encoded
    ngram = checkpoint.generation.no_repeat_ngram_size
    if count := count_repetitive(training, ngram):
        _logger.warning(
            "%d of %d answers repeat %d tokens, which the checkpoint's no_repeat_ngram_size %d forbids: it cannot give "
            "them unless requests set no_repeat_ngram_size to 0",
            *(count, len(training), ngram, ngram),
        )
    longest = max(len(example.label_ids) for example in validation)
    if longest > settings.longest_answer and measure != "loss":
        _logger.warning(
            "validation answers have up to %d tokens, and evaluations cut off what is generated after %d of them; "
            "--longest-answer sets this limit",
            *(longest, settings.longest_answer),
        )


def _trainable(model: TrainedModel | PeftModel) -> str:
    weights: Any = list(model.parameters())
    trained, total = (sum(each.numel() for each in some) for some in ([w for w in weights if w.requires_grad], weights))
    return f"{trained:,} of {total:,} weights are trained"


def _datasets(
    model: TrainedModel, checkpoint: Checkpoint, settings: Settings, encoded: list[list[EncodedExample]]
) -> tuple[ExampleDataset, ExampleDataset]:
    """The training and validation data; if the vision tower is frozen, with embeddings instead of pixels."""
    load_image: Callable[[Path], Tensor] = ImageLoader(checkpoint.image_processor)
    images = {example.image for examples in encoded for example in examples}
    needed = embedding_gigabytes(len(images), checkpoint.image_tokens, checkpoint.model.config.text_config.d_model)
    # Each of several processes would hold, and compute, all embeddings.
    are_embedded = model.vision_is_frozen and needed <= settings.feature_memory and _processes() == 1
    if are_embedded:
        use_gpu = settings.device == "auto" and torch.cuda.is_available()
        device = torch.device("cuda" if use_gpu else "cpu")
        checkpoint.model.to(device).eval()
        load_image = embed_all(model, sorted(images), load_image, device).__getitem__
    training, validation = (ExampleDataset(examples, load_image, are_embedded=are_embedded) for examples in encoded)
    return training, validation


def _processes() -> int:
    state: Any = PartialState()  # of `accelerate launch`
    return int(state.num_processes)


def _result(state: TrainerState, measure: str, data: Data) -> Result:
    key = f"eval_{measure}"
    values = {entry["step"]: entry[key] for entry in state.log_history if key in entry}
    best = state.best_global_step or state.global_step
    return Result(measure, values.get(0), values.get(best), best, len(data.training), len(data.validation))
