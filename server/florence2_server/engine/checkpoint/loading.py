"""A loaded checkpoint: model, processor, tokenizer and generation defaults, from a folder or the hub."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from typing import Any

import torch
from florence2.options import Limit
from torch import Tensor
from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint import original_layout
from florence2_server.engine.checkpoint.files import CheckpointFiles, find
from florence2_server.engine.checkpoint.processors import check_tokenizer, image_size, load_processors
from florence2_server.engine.checkpoint.vision_geometry import check_declared, count_image_tokens
from florence2_server.engine.checkpoint.weights import read_weights
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.generation_config import generation_defaults
from florence2_server.engine.limits import positions_limit, prompt_limit
from florence2_server.engine.options import GenerationDefaults

_logger = logging.getLogger(__name__)

_SHARED = "model.language_model.shared.weight"
_EMBEDDINGS = ("model.language_model.encoder.embed_tokens.weight", "model.language_model.decoder.embed_tokens.weight")
_HEAD = "lm_head.weight"
# Added to names by DistributedDataParallel and torch.compile.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")
_PEFT_PREFIX = "base_model.model."
# Computed from the config, so files may omit it.
_TEMPORAL_EMBEDDING = "model.multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"


class Layout(Enum):
    """The naming scheme of a checkpoint's tensors: that of transformers, or of the original code."""

    NATIVE = "native"
    ORIGINAL = "original"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: `Florence2ForConditionalGeneration` on its device, in evaluation mode.
        image_processor: the Hugging Face image processor.
        tokenizer: the Hugging Face tokenizer.
        generation: defaults of the generation options.
        generation_config: the config that the defaults were made from, with token ids repaired.
        prompt_limit: the most tokens of a prompt.
        image_tokens: how many tokens the vision tower makes from an image.
        files: the files that it was loaded from.
        layout: the layout of the weights in these files.
        saved_dtype: the dtype of the weights in these files; the widest one if they differ.
    """

    model: Any
    image_processor: Any
    tokenizer: Any
    generation: GenerationDefaults
    generation_config: GenerationConfig
    prompt_limit: Limit
    image_tokens: int
    files: CheckpointFiles
    layout: Layout
    saved_dtype: torch.dtype


def load(config: EngineConfig) -> Checkpoint:
    """Load the checkpoint that `config` names.

    Raises:
        CheckpointError: it cannot be served; the message is one line.
    """
    try:
        files = find(config.checkpoint, safetensors_only=bool(config.safetensors_only))
        return _load(files, config)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {config.checkpoint!r}: {error}") from error
    except Exception as error:  # damaged files make libraries raise anything; operators need one line
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"checkpoint {config.checkpoint!r} cannot be loaded: {reason}") from error


def _load(files: CheckpointFiles, config: EngineConfig) -> Checkpoint:
    saved_config = files.json("config.json")
    is_original = original_layout.has_original_config(saved_config)
    model_config, text_config, vision_config = _model_config(saved_config, is_original)
    image_processor, tokenizer = load_processors(files, is_original=is_original)
    image_tokens = count_image_tokens(vision_config, image_size(image_processor))
    if not is_original:
        check_declared(image_processor.image_seq_length, image_tokens)
    positions = positions_limit(config.positions, text_config.max_position_embeddings)
    prompt = prompt_limit(positions, image_tokens)
    weights, layout = _weights(files, tied=model_config.tie_word_embeddings)
    text_config.vocab_size = len(weights[_SHARED])
    check_tokenizer(tokenizer, text_config.vocab_size)
    model = _model(model_config, weights, config)
    saved_dtypes = (weights[name].dtype for name in model.state_dict().keys() & weights.keys())
    generation_config = original_layout.generation_config(saved_config) if is_original else _generation(files, model)
    checkpoint = Checkpoint(
        model=model,
        image_processor=image_processor,
        tokenizer=tokenizer,
        generation=generation_defaults(generation_config, tokenizer, positions, config),
        generation_config=generation_config,
        prompt_limit=prompt,
        image_tokens=image_tokens,
        files=files,
        layout=layout,
        saved_dtype=reduce(torch.promote_types, saved_dtypes),
    )
    _log(checkpoint)
    return checkpoint


def _model_config(saved: Mapping[str, Any], is_original: bool) -> tuple[Florence2Config, Any, Any]:
    """The config of the model, and those of its text model and vision tower."""
    if (model_type := saved.get("model_type", "florence2")) != "florence2":
        raise CheckpointError(f"config.json: model_type: got {model_type!r}, expected 'florence2'")
    if saved.get("quantization_config"):
        raise CheckpointError("config.json: quantization_config: quantized weights are not supported")
    native = original_layout.native_config(saved) if is_original else dict(saved)
    config: Any = Florence2Config.from_dict(native)
    width, projected = config.text_config.d_model, config.vision_config.projection_dim
    if projected != width:
        raise CheckpointError(
            f"config.json: vision_config.projection_dim: got {projected}, expected {width}, as d_model"
        )
    return config, config.text_config, config.vision_config


def _weights(files: CheckpointFiles, *, tied: bool) -> tuple[dict[str, Tensor], Layout]:
    """The tensors by transformers' names, and the layout of the files."""
    weights = _unwrapped(read_weights(files))
    layout = Layout.ORIGINAL if original_layout.has_original_weights(weights) else Layout.NATIVE
    if layout is Layout.ORIGINAL:
        weights = original_layout.native_weights(weights)
    _resolve_tied(weights, tied=tied)
    return weights, layout


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by their names without the prefixes of training wrappers."""
    for prefix in _WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    if any(name.startswith(_PEFT_PREFIX) for name in weights):
        raise CheckpointError("the weights are those of an unmerged peft model: save it again after merge_and_unload")
    return weights


def _resolve_tied(weights: dict[str, Tensor], *, tied: bool) -> None:
    """Keep only one of the tied tensors that a file repeats, under the name that every model has.

    Encoder and decoder embeddings are the same tensor. So is the output layer, unless the config unties it or the file
    has a different tensor for it, which transformers uses as well.
    """
    aliases = [name for name in (_SHARED, *_EMBEDDINGS, *((_HEAD,) if tied else ())) if name in weights]
    if not aliases:
        raise CheckpointError("the weights have no token embeddings")
    shared = weights.setdefault(_SHARED, weights[aliases[0]])
    for name in aliases:
        if name != _SHARED and _same(weights[name], shared):
            del weights[name]
    if tied and _HEAD in weights:
        _logger.warning("the config ties the output layer to the token embeddings, but the file's differs and is used")
    if not tied and _HEAD not in weights:
        raise CheckpointError(f"config.json: tie_word_embeddings is false, but the weights have no {_HEAD}")
    if not tied:  # transformers then expects all of them as separate tensors
        weights.update(dict.fromkeys((name for name in _EMBEDDINGS if name not in weights), shared))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or torch.equal(one, other)


def _model(model_config: Florence2Config, weights: dict[str, Tensor], config: EngineConfig) -> Any:
    device = device_of(config.device)
    dtype = dtype_of(config.dtype, device)
    if dtype == torch.float32:
        # By default PyTorch computes convolutions in TF32 on a GPU, with 10 bits of mantissa instead of 23.
        torch.backends.cudnn.allow_tf32 = False
    load_model: Any = Florence2ForConditionalGeneration.from_pretrained  # its type hints lack the loading info
    model, loading = load_model(
        None,
        config=model_config,
        state_dict=weights,
        dtype=dtype,
        ignore_mismatched_sizes=True,  # rejected below, in one line
        output_loading_info=True,
    )
    # transformers only warns of missing weights and initializes them randomly, which a server must not use.
    for fault in ("missing_keys", "mismatched_keys"):
        if names := {str(name) for name in loading[fault]} - {_TEMPORAL_EMBEDDING}:
            raise CheckpointError(f"{len(names)} {fault}, e.g. {min(names)}")
    if names := loading["unexpected_keys"]:
        _logger.warning("%d tensors are not part of Florence-2 and are ignored, e.g. %s", len(names), min(names))
    return model.to(device).eval()


def _generation(files: CheckpointFiles, model: Any) -> GenerationConfig:
    """A native checkpoint's generation config."""
    if (files.folder / "generation_config.json").is_file():
        config: GenerationConfig = GenerationConfig.from_pretrained(files.folder, local_files_only=True)
    else:
        config = model.generation_config  # made from config.json by transformers
    return config


def device_of(name: str) -> torch.device:
    """The device of a setting."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a setting, on this device."""
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _log(checkpoint: Checkpoint) -> None:
    files, model = checkpoint.files, checkpoint.model
    revision = f" at revision {files.revision}" if files.revision else ""
    layout, saved = checkpoint.layout.value, str(checkpoint.saved_dtype).removeprefix("torch.")
    served = f"{str(model.dtype).removeprefix('torch.')} on {model.device}"
    _logger.info("loaded %s%s: %s layout, %s weights, served in %s", files.name, revision, layout, saved, served)
    for adapter in files.adapters:
        _logger.warning("%s next to the weights is not applied", adapter)
