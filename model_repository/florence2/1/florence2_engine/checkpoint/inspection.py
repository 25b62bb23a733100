"""Loads a checkpoint as the engine would, and tells what was found."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import Enum
from typing import Any

import torch

from florence2_engine.checkpoint.files import CheckpointFiles, find
from florence2_engine.checkpoint.loading import Checkpoint, device_of, dtype_of, load
from florence2_engine.checkpoint.original_layout import ADDED_TOKENS
from florence2_engine.checkpoint.processors import image_size
from florence2_engine.checkpoint.report import Report, listed, size
from florence2_engine.config import EngineConfig
from florence2_engine.errors import CheckpointError
from florence2_engine.kv_cache import KeyValueCache

# Of every Florence-2 tokenizer, beside what its processor adds.
_CONTROL_TOKENS = {"<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>"}
# With these values a generation option does nothing.
_TRIVIAL: dict[str, object] = {"min_new_tokens": 0, "length_penalty": 1.0, "no_repeat_ngram_size": 0}
_LIMITS = {"max_positions", "longest_answer", "most_beams"}


def inspect(config: EngineConfig) -> Report:
    """What would be served, and with which surprises.

    The checkpoint is loaded on the CPU, whatever device it would be served on: a server may be using that.

    Args:
        config: the settings it would be served with.
    """
    report = Report()
    report.add("checkpoint", config.checkpoint)
    with _warnings(report.surprises):
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
            report.refusal = str(error)
    report.surprises[:] = dict.fromkeys(report.surprises)  # files are looked at twice
    return report


def _add_files(report: Report, files: CheckpointFiles) -> None:
    kind = "safetensors" if files.are_safetensors else ".bin, read without running code"
    report.add("revision", files.revision or "none, it is a folder")
    report.add("weights", f"{listed(files.weights, most=3)} ({kind})")
    report.add("on disk", size(sum((files.folder / file).stat().st_size for file in files.weights)))
    folders = sorted(f"{path.parent.name}/" for path in files.folder.glob("*/adapter_config.json"))
    adapters = [*files.adapters, *folders]
    report.add("adapters", f"{listed(adapters)}{', not applied' if adapters else ''}")


def _add_model(report: Report, checkpoint: Checkpoint, device: torch.device) -> None:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    height, width = image_size(checkpoint.image_processor)
    own_tokens = sorted(set(tokenizer.get_added_vocab()) - set(ADDED_TOKENS) - _CONTROL_TOKENS)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    report.add("layout", checkpoint.layout.value)
    report.add("saved in", _name(checkpoint.saved_dtype))
    report.add("served in", f"{_name(model.dtype)} on {device}")
    report.add("parameters", f"{sum(parameter.numel() for parameter in model.parameters()):,}")
    report.add("image", f"{width} x {height} pixels, {checkpoint.image_tokens} tokens")
    report.add("vocabulary", f"{len(model.get_input_embeddings().weight):,} embeddings, {len(tokenizer):,} tokens")
    report.add("own tokens", listed(own_tokens))
    report.add("output layer", "tied to the embeddings" if tied else "its own")
    report.add("positions", f"{checkpoint.max_positions:,} of the checkpoint")
    report.add("generation", _generation(checkpoint.generation))


def _generation(defaults: Any) -> str:
    """The options that do something."""
    options = {name: value for name, value in asdict(defaults).items() if name not in _LIMITS}
    return ", ".join(
        f"{name}={value.value if isinstance(value, Enum) else value}"
        for name, value in options.items()
        if value is not None and value != _TRIVIAL.get(name)
    )


def _add_memory(report: Report, checkpoint: Checkpoint, config: EngineConfig) -> None:
    model = checkpoint.model
    cache = _cache(checkpoint, config)
    rows, slots = cache.own.shape[2], cache.cross.shape[2]
    report.add("weights take", size(sum(weight.nbytes for weight in model.parameters())))
    report.add("cache takes", f"{size(cache.own.nbytes + cache.cross.nbytes)} for {slots} slots and {rows} beams")


def _cache(checkpoint: Checkpoint, config: EngineConfig) -> KeyValueCache:
    """The engine's, but without its memory."""
    text = checkpoint.model.config.text_config
    return KeyValueCache(
        layers=text.decoder_layers,
        slots=config.slots,
        rows=config.rows or max(config.slots * checkpoint.generation.num_beams, config.max_beams),
        heads=text.decoder_attention_heads,
        positions=checkpoint.max_positions,
        head_width=text.d_model // text.decoder_attention_heads,
        device=torch.device("meta"),
        dtype=checkpoint.model.dtype,
    )


def _require(device: torch.device) -> None:
    """Check that the device that it would be served on is there.

    Raises:
        CheckpointError: it is not.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # what PyTorch raises depends on how it was built
        raise CheckpointError(f"device: got '{device}': {str(error).splitlines()[0]}") from error


@contextmanager
def _warnings(messages: list[str]) -> Iterator[None]:
    """Collect what the engine would warn of in its log."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    collector, logger = Collector(logging.WARNING), logging.getLogger("florence2_engine")
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagated


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
