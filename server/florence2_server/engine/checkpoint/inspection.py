"""A checkpoint, loaded as the engine would load it, and a report about it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from enum import Enum
from typing import NamedTuple

import torch

from florence2_server import __version__
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.files import CheckpointFiles, find
from florence2_server.engine.checkpoint.loading import Checkpoint, device_of, dtype_of, load
from florence2_server.engine.checkpoint.original_layout import ADDED_TOKENS
from florence2_server.engine.checkpoint.processors import image_size
from florence2_server.engine.checkpoint.report import Report, listed, size
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.model.kv_cache import KeyValueCache
from florence2_server.engine.options import GenerationDefaults

# Every Florence-2 tokenizer has these besides the tokens that its processor adds.
_CONTROL_TOKENS = {"<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>"}
# Values of generation options that have no effect.
_NEUTRAL: dict[str, object] = {
    "min_new_tokens": 0,
    "length_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "suppress_bos": False,
}
_NOT_OPTIONS = {"positions", "longest_completion", "most_beams", "rules", "image_token_id"}


class Inspected(NamedTuple):
    """A checkpoint, if it can be served, and the report about it."""

    report: Report
    checkpoint: Checkpoint | None


def inspect(config: EngineConfig) -> Inspected:
    """Report how a checkpoint would be served, with the warnings that the engine would log.

    The checkpoint is loaded on the CPU, even if it would be served on a GPU, because a server may be using the GPU.

    Args:
        config: the settings with which it would be served.
    """
    report, checkpoint = Report(), None
    report.add("checkpoint", config.checkpoint)
    with collect_warnings(report.warnings):
        try:
            device = device_of(config.device)
            dtype = dtype_of(config.dtype, device)
            files = find(config.checkpoint, safetensors_only=bool(config.safetensors_only))
            _add_files(report, files)
            checkpoint = load(replace(config, device="cpu", dtype=_name(dtype)))
            _add_model(report, checkpoint, device)
            _add_memory(report, checkpoint, config)
            _require(device)
        except CheckpointError as error:
            report.fail(error)
    report.warnings[:] = dict.fromkeys(report.warnings)  # without duplicates: files are checked twice
    return Inspected(report, None if report.error else checkpoint)


def _add_files(report: Report, files: CheckpointFiles) -> None:
    kind = "safetensors" if files.are_safetensors else ".bin, read without running code"
    report.add("revision", files.revision or "none (a local folder)")
    report.add("weights", f"{listed(files.weights, most=3)} ({kind})")
    report.add("size on disk", size(sum((files.folder / file).stat().st_size for file in files.weights)))
    folders = sorted(f"{path.parent.name}/" for path in files.folder.glob("*/adapter_config.json"))
    adapters = [*files.adapters, *folders]
    report.add("adapters", f"{listed(adapters)}{', not applied' if adapters else ''}")


def _add_model(report: Report, checkpoint: Checkpoint, device: torch.device) -> None:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    height, width = image_size(checkpoint.image_processor)
    added_tokens = sorted(set(tokenizer.get_added_vocab()) - set(ADDED_TOKENS) - _CONTROL_TOKENS)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    report.add("served by", f"florence2-triton {__version__}")
    report.add("layout", checkpoint.layout.value)
    report.add("saved dtype", _name(checkpoint.saved_dtype))
    report.add("served dtype", f"{_name(model.dtype)} on {device}")
    report.add("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}")
    report.add("image", f"{width} x {height} pixels, {checkpoint.image_tokens} tokens")
    report.add("vocabulary", f"{len(model.get_input_embeddings().weight):,} embeddings, {len(tokenizer):,} tokens")
    report.add("added tokens", listed(added_tokens))
    report.add("output layer", "tied to the embeddings" if tied else "separate")
    positions = model.config.text_config.max_position_embeddings
    used = checkpoint.generation.positions
    report.add("positions", f"{positions:,} in the checkpoint, {used.value:,} used ({used.cause})")
    report.add("generation", _generation(checkpoint.generation))


def _generation(defaults: GenerationDefaults) -> str:
    """The generation options and rules that have an effect."""
    options = {
        **vars(defaults),
        **{field.name: getattr(defaults.rules, field.name) for field in fields(defaults.rules)},
    }
    return ", ".join(
        f"{name}={value.value if isinstance(value, Enum) else value}"
        for name, value in options.items()
        if name not in _NOT_OPTIONS and value not in (None, (), _NEUTRAL.get(name))
    )


def _add_memory(report: Report, checkpoint: Checkpoint, config: EngineConfig) -> None:
    model, rows = checkpoint.model, config.rows_for(checkpoint.generation.num_beams)
    positions = checkpoint.generation.positions.value
    cache = KeyValueCache.of(model, config.slots, rows, positions, torch.device("meta"))
    report.add("weights memory", size(sum(weight.nbytes for weight in model.parameters())))
    report.add("cache memory", f"{size(cache.size_in_bytes)} for {config.slots} slots and {rows} beams")


def _require(device: torch.device) -> None:
    """Check that the device on which the checkpoint would be served is available.

    Raises:
        CheckpointError: it is not.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # which one depends on how PyTorch was built
        raise CheckpointError(f"device: got '{device}': {str(error).splitlines()[0]}") from error


@contextmanager
def collect_warnings(messages: list[str]) -> Iterator[None]:
    """Collect the warnings that the engine would log."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector, logger = Collector(logging.WARNING), logging.getLogger("florence2_server.engine")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagated


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
