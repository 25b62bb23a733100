"""Loads a checkpoint: weights, processor, tokenizer and generation config, from a folder or the hub."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from florence2_engine.config import EngineConfig
from florence2_engine.errors import CheckpointError
from florence2_engine.generation_config import generation_defaults
from florence2_engine.options import GenerationDefaults

_logger = logging.getLogger(__name__)

# Weights are read from safetensors alone: other formats can carry code.
_HUB_FILES = ("*.json", "*.safetensors")
_NEEDED_FILES = ("config.json", "tokenizer.json")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: `Florence2ForConditionalGeneration` on its device, in evaluation mode.
        image_processor: the Hugging Face image processor.
        tokenizer: the Hugging Face tokenizer.
        generation: defaults of the generation options.
        max_positions: positions of the text encoder, image tokens included.
        image_tokens: tokens that the vision tower makes of an image.
    """

    model: Any
    image_processor: Any
    tokenizer: Any
    generation: GenerationDefaults
    max_positions: int
    image_tokens: int


def load(config: EngineConfig) -> Checkpoint:
    """Load the checkpoint that `config` names.

    Raises:
        CheckpointError: it cannot be served. One line says why.
    """
    try:
        folder = _folder(config.checkpoint)
        processor = Florence2Processor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = _model(folder, config)
        max_positions = model.config.text_config.max_position_embeddings
        generation = generation_defaults(model.generation_config, processor.tokenizer, max_positions, config)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged file makes the libraries raise, the reader needs one line
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(f"checkpoint {config.checkpoint!r} cannot be loaded: {reason}") from error
    return Checkpoint(
        model,
        processor.image_processor,
        processor.tokenizer,
        generation,
        max_positions,
        image_tokens=processor.num_image_tokens,
    )


def _folder(name: str) -> Path:
    """The folder of a checkpoint, downloaded first if `name` is a hub id."""
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute() or name.startswith(".") or name.count("/") != 1:
            raise CheckpointError(f"checkpoint {name!r}: no such folder, and a hub id reads owner/name")
        folder = _download(name)
    for needed in _NEEDED_FILES:
        if not (folder / needed).is_file():
            raise CheckpointError(f"checkpoint {name!r}: {needed} is missing")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"checkpoint {name!r}: no *.safetensors file; other formats are not read")
    model_type = json.loads((folder / "config.json").read_text()).get("vision_config", {}).get("model_type")
    if model_type == "davit":
        raise CheckpointError(
            f"checkpoint {name!r} has the original layout; take a converted one: florence-community/Florence-2-base"
        )
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download  # only here is the network touched

    _logger.info("fetching %s from the hub", name)
    return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))


def _model(folder: Path, config: EngineConfig) -> Any:
    device = _device(config.device)
    dtype = _dtype(config.dtype, device)
    if dtype == torch.float32:
        # By itself PyTorch computes convolutions in TF32 on a GPU, with 10 bits of mantissa instead of 23.
        torch.backends.cudnn.allow_tf32 = False
    load_model: Any = Florence2ForConditionalGeneration.from_pretrained  # its types know nothing of the loading info
    model, loading = load_model(
        folder,
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers and warns; a server must not answer from those.
    for fault in ("missing_keys", "mismatched_keys"):
        if keys := loading[fault]:
            raise CheckpointError(f"checkpoint {str(folder)!r}: {len(keys)} {fault}, e.g. {sorted(keys)[0]}")
    return model.to(device).eval()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        name = "float32" if device.type == "cpu" else "bfloat16"
    dtype: torch.dtype = getattr(torch, name)
    return dtype
