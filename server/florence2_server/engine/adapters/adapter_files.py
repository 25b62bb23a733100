"""Reads a peft adapter from its folder, for a loaded checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from florence2_server.engine.adapters.adapter_config import CONFIG_FILE, parse_config
from florence2_server.engine.adapters.adapter_tokenizer import load_adapter_tokenizer
from florence2_server.engine.adapters.conversion import Conversion
from florence2_server.engine.adapters.factors import read_factors
from florence2_server.engine.adapters.missing_config import explain_folder
from florence2_server.engine.adapters.tensor_names import TABLES, parse_names
from florence2_server.engine.adapters.token_tables import read_tables
from florence2_server.engine.checkpoint.files import CheckpointFiles
from florence2_server.engine.checkpoint.loading import Checkpoint
from florence2_server.engine.checkpoint.weights import read_tensors_copied
from florence2_server.engine.errors import AdapterError, CheckpointError
from florence2_server.engine.model.adapter_tensors import AdapterTensors

SAFETENSORS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
# Larger than any tokenizer of Florence-2, and than a list of all its tokens.
_MOST_TEXT_BYTES = 32 << 20
_TEXT_SUFFIXES = (".json", ".txt", ".jinja")
_HEADER_BYTES = 1 << 20
_MARGIN = 2  # for rows of added tokens, and for tensors that are not used


@dataclass(frozen=True)
class Adapter:
    """An adapter that fits a checkpoint.

    Attributes:
        tensors: what it changes.
        tokenizer: its own Hugging Face tokenizer, which has more tokens than the checkpoint's; None if it has none.
    """

    tensors: AdapterTensors
    tokenizer: Any | None


def read_adapter(
    folder: Path,
    checkpoint: Checkpoint,
    *,
    max_rank: int,
    safetensors_only: bool = False,
    device: torch.device | None = None,
) -> Adapter:
    """Read an adapter in either layout.

    Args:
        folder: what peft's `save_pretrained` wrote: `adapter_config.json`, `adapter_model.safetensors` or `.bin`, and
            perhaps a tokenizer.
        checkpoint: the base model.
        max_rank: the highest rank that is served.
        safetensors_only: reject `.bin` weights.
        device: of the tensors, which have the model's dtype; None: the model's.

    Raises:
        AdapterError: it cannot be served with this checkpoint; the message is one line.
    """
    try:
        return _read(folder, checkpoint, max_rank, safetensors_only, device)
    except CheckpointError as error:
        raise AdapterError(f"adapter {str(folder)!r}: {error}") from error
    except Exception as error:  # damaged files make libraries raise anything; operators need one line
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise AdapterError(f"adapter {str(folder)!r} cannot be read: {reason}") from error


def _read(
    folder: Path, checkpoint: Checkpoint, max_rank: int, safetensors_only: bool, device: torch.device | None
) -> Adapter:
    if not (folder / CONFIG_FILE).is_file():
        raise AdapterError(explain_folder(folder))
    _check_text_sizes(folder)
    config = parse_config(CheckpointFiles(str(folder), folder, None, (), ()).json(CONFIG_FILE))
    model = checkpoint.model
    weights = _weights(folder, safetensors_only, most_weight_bytes(model, max_rank))
    names = parse_names(weights)
    conversion = Conversion(model.dtype, device or model.device)
    tables = read_tables(names, weights, model, config, conversion)
    layers = dict(model.named_modules(remove_duplicate=False))
    factors = read_factors(names, weights, layers, config, conversion, vocabulary=tables.vocabulary, max_rank=max_rank)
    tensors = AdapterTensors(factors, tables.input_rows, tables.output_rows, tables.vocabulary)
    return Adapter(tensors, load_adapter_tokenizer(folder, checkpoint, tables.vocabulary))


def most_weight_bytes(model: Any, max_rank: int) -> int:
    """More than the weights of any adapter of a model take: all layers are targets, and each table has new rows."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    factors = max_rank * sum(sum(layer.weight.flatten(1).shape) for layer in layers)
    tables: int = len(TABLES) * model.get_input_embeddings().weight.numel()
    return _HEADER_BYTES + _MARGIN * torch.float32.itemsize * (factors + tables)


def _check_text_sizes(folder: Path) -> None:
    """Check the configuration and the tokenizer, whose parsers take many times the size of a file."""
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size if path.suffix in _TEXT_SUFFIXES and path.is_file() else 0
        if size > _MOST_TEXT_BYTES:
            raise AdapterError(f"{path.name}: got {size} bytes, expected at most {_MOST_TEXT_BYTES}")


def _weights(folder: Path, safetensors_only: bool, most_bytes: int) -> dict[str, Tensor]:
    if (folder / SAFETENSORS).is_file():
        weights = read_tensors_copied(folder / SAFETENSORS, most_bytes)
    elif not (folder / PICKLE).is_file():
        raise AdapterError(f"{SAFETENSORS} or {PICKLE} is missing")
    elif safetensors_only:
        raise AdapterError("there are only .bin weights, which FLORENCE2_SAFETENSORS_ONLY rejects")
    else:
        weights = read_tensors_copied(folder / PICKLE, most_bytes)
    if not weights:
        raise AdapterError("the weights have no tensors")
    return weights
