"""transformers' Seq2SeqTrainer with the settings of a run, its measure, its log and its loss plot."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from florence2_server.engine.checkpoint.loading import Checkpoint
from torch.utils.data import Dataset
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from training.finetune.callbacks import Log, LossPlot
from training.finetune.dataset import Collator, Tensors
from training.finetune.encoding import ExampleEncoder
from training.finetune.examples import Example
from training.finetune.measures import MEASURES
from training.finetune.resuming import state_folder
from training.finetune.settings import Settings

_COMPARED = "eval_compared"
_TIE_BREAK = 1e-6  # less than the weight of one answer
_KEPT_CHECKPOINTS = 2  # the best one and the last one


class FinetuneTrainer(Seq2SeqTrainer):
    """transformers' trainer, with two changes.

    Of two checkpoints with the same score, the one with the lower validation loss is the better one. And a run that is
    resumed after its last step, because it was killed before its result was saved, takes no further step.

    Attributes:
        measure: the name of the measure.
    """

    measure = "loss"

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, and add the figure by which checkpoints are compared."""
        metrics = super().evaluate(*args, **kwargs)
        if self.measure != "loss":
            loss = metrics["eval_loss"]
            metrics[_COMPARED] = metrics[f"eval_{self.measure}"] - _TIE_BREAK * loss / (1 + loss)
        return metrics

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of the next step; none after the last step."""
        if self.state.global_step >= self.state.max_steps:
            return [], None
        return super().get_batch_samples(*args, **kwargs)


def make_trainer(
    model: Any,
    checkpoint: Checkpoint,
    arguments: Seq2SeqTrainingArguments,
    data: tuple[Dataset[Tensors], Dataset[Tensors]],
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None,
    measure: str,
) -> FinetuneTrainer:
    """The trainer of a run.

    Args:
        model: from `prepare_model`.
        checkpoint: the base.
        arguments: from `training_arguments`.
        data: training and validation data.
        compute_metrics: from `metrics_of`; None if the measure is the loss.
        measure: its name.
    """
    training, validation = data
    make: Any = FinetuneTrainer  # its type hints lack some of the accepted classes
    trainer: FinetuneTrainer = make(
        model=model,
        args=arguments,
        data_collator=Collator(checkpoint.tokenizer.pad_token_id, checkpoint.image_tokens),
        train_dataset=training,
        eval_dataset=validation,
        compute_metrics=compute_metrics,
        callbacks=[Log(), LossPlot(Path(str(arguments.output_dir)).parent, measure)],
    )
    trainer.measure = measure
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(
    settings: Settings, measure: str, *, is_resumed: bool, decodes: bool
) -> Seq2SeqTrainingArguments:
    """Trainer's arguments for the settings.

    Args:
        settings: the run's.
        measure: the name of the measure.
        is_resumed: whether there is a checkpoint to resume from; else the base is evaluated first.
        decodes: whether images are decoded during training, which worker processes speed up.
    """
    make: Any = Seq2SeqTrainingArguments
    arguments: Seq2SeqTrainingArguments = make(
        output_dir=str(state_folder(settings)),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        per_device_train_batch_size=settings.batch,
        per_device_eval_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        bf16=settings.precision == "bfloat16",
        fp16=settings.precision == "float16",
        seed=settings.seed,
        # Without this bfloat16 is refused where there is no GPU.
        use_cpu=settings.device == "cpu" or not torch.accelerator.is_available(),
        eval_on_start=not is_resumed,
        logging_steps=settings.log_every,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=min(settings.workers, len(os.sched_getaffinity(0))) if decodes else 0,
        dataloader_pin_memory=torch.cuda.is_available() and settings.device != "cpu",
        ddp_find_unused_parameters=False,
        disable_tqdm=True,  # `Log` reports the progress
        report_to="none",
        **_evaluation_arguments(settings, measure),
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # `accelerate launch` uses several; Trainer by itself would copy the model in every step
    return arguments


def _evaluation_arguments(settings: Settings, measure: str) -> dict[str, Any]:
    """When to evaluate and save, and which checkpoints to keep."""
    strategy = "steps" if settings.evaluate_every else "epoch"
    steps = {"eval_steps": settings.evaluate_every, "save_steps": settings.evaluate_every}
    return {
        "eval_strategy": strategy,
        "save_strategy": strategy,
        **(steps if settings.evaluate_every else {}),
        "save_total_limit": _KEPT_CHECKPOINTS,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss" if measure == "loss" else _COMPARED,
        "greater_is_better": measure != "loss",
        "predict_with_generate": measure != "loss",
        "prediction_loss_only": measure == "loss",
    }


def metrics_of(
    examples: Sequence[Example], encoder: ExampleEncoder, measure: str
) -> Callable[[EvalPrediction], dict[str, float]] | None:
    """The function that Trainer calls with the tokens generated for all validation examples, in order.

    Args:
        examples: the validation examples.
        encoder: decodes the tokens.
        measure: a name in `MEASURES`, or loss, which Trainer computes itself.
    """
    if measure == "loss":
        return None

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        # Several processes pad the last batch with examples from the start.
        rows: Any = prediction.predictions[: len(examples)]
        texts = [encoder.text(int(token) for token in row if token >= 0) for row in rows]
        return {measure: MEASURES[measure](examples, texts)}

    return compute
