"""From an engine's settings to an engine that is ready."""

from functools import partial
from typing import Any, NamedTuple

import torch
from florence2.v1 import EngineInfo

from florence2_server.config import EngineConfig
from florence2_server.engine import warm_up
from florence2_server.engine.adapters.adapter_files import Adapter, read_adapter
from florence2_server.engine.adapters.adapter_folder import find_adapter
from florence2_server.engine.adapters.adapter_set import AdapterSet
from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.checkpoint.files import hub_id
from florence2_server.engine.checkpoint.loading import Checkpoint, load
from florence2_server.engine.embeddings import EmbeddingCache
from florence2_server.engine.engine import Engine
from florence2_server.engine.images.decoding import ImageDecoder
from florence2_server.engine.images.image_file import ImageReader
from florence2_server.engine.images.resizing import resizing_of
from florence2_server.engine.masses import LocationTokens
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.runner import Runner
from florence2_server.engine.preparation import Preparation
from florence2_server.engine.scheduler import BatchLimits, Scheduler
from florence2_server.engine.tokenizer import PromptTokenizer


class BuiltEngine(NamedTuple):
    """An engine that has yet to be started."""

    engine: Engine
    preparation: Preparation
    """Translates between messages and the engine's generations."""
    info: EngineInfo
    """What the engine serves."""


def build(config: EngineConfig) -> BuiltEngine:
    """Load a checkpoint and warm up.

    Raises:
        CheckpointError: the checkpoint cannot be served.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = load(config)
    limits = _batch_limits(config, checkpoint)
    runner = _warm_runner(checkpoint, limits)
    defaults = checkpoint.generation
    candidates = CandidateFinder(defaults.bos_token_id, defaults.eos_token_id, LocationTokens.of(checkpoint.tokenizer))
    engine = Engine(runner, Scheduler(limits), candidates, EmbeddingCache(config.embedding_cache_bytes))
    images = ImageDecoder(resizing_of(checkpoint.image_processor), ImageReader.of(config))
    tokenizer = PromptTokenizer(checkpoint.tokenizer, checkpoint.prompt_limit)
    read = partial(_read_adapter, config, checkpoint)
    adapters = AdapterSet(engine, read, partial(_tokenizer, checkpoint, tokenizer), config.max_adapters)
    return BuiltEngine(engine, Preparation(images, tokenizer, defaults, adapters), _info(config, checkpoint))


def _read_adapter(config: EngineConfig, checkpoint: Checkpoint, source: str) -> Adapter:
    safetensors_only = bool(config.safetensors_only)
    folder = find_adapter(source, safetensors_only=safetensors_only)
    return read_adapter(folder, checkpoint, max_rank=config.max_adapter_rank, safetensors_only=safetensors_only)


def _tokenizer(checkpoint: Checkpoint, own: PromptTokenizer, adapters: Any | None) -> PromptTokenizer:
    return own if adapters is None else PromptTokenizer(adapters, checkpoint.prompt_limit)


def _info(config: EngineConfig, checkpoint: Checkpoint) -> EngineInfo:
    files = checkpoint.files
    return EngineInfo(
        checkpoint=hub_id(files.name)[0] if files.revision else files.name,
        revision=files.revision or "",
        layout=checkpoint.layout.value,
        device=str(checkpoint.model.device),
        dtype=str(checkpoint.model.dtype).removeprefix("torch."),
        slots=config.slots,
    )


def _batch_limits(config: EngineConfig, checkpoint: Checkpoint) -> BatchLimits:
    is_cpu = checkpoint.model.device.type == "cpu"
    # On a CPU, encoding several images at once is no faster, and encoding ahead takes the cores that decoding needs.
    default_image_batch = 1 if is_cpu else config.prefill_batch
    encodes_ahead = not is_cpu if config.encode_ahead == "auto" else config.encode_ahead == "1"
    return BatchLimits(
        slots=config.slots,
        rows=config.rows_for(checkpoint.generation.num_beams),
        prefill_batch=config.prefill_batch,
        image_batch=config.image_batch or default_image_batch,
        encoded_ahead=config.ahead if encodes_ahead else 0,
    )


def _warm_runner(checkpoint: Checkpoint, limits: BatchLimits) -> Runner:
    normalization = Normalization.of(checkpoint.image_processor)
    positions = checkpoint.generation.positions.value
    runner = Runner(checkpoint.model, normalization, limits.slots, limits.rows, positions)
    if checkpoint.model.device.type == "cpu":
        warm_up.run_once(runner, checkpoint)
    else:
        warm_up.record_graphs(runner, checkpoint, limits)
    return runner
