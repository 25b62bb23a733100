"""Reads weight files into tensors by name.

Files are memory-mapped: a page costs nothing until it is used. No code in a file is ever run.
"""

import logging
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from florence2_engine.checkpoint.files import CheckpointFiles
from florence2_engine.errors import CheckpointError

_logger = logging.getLogger(__name__)

# How torch's restricted unpickler reports a pickle that needs more than tensors.
_UNSUPPORTED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(files: CheckpointFiles) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU, in the dtype that they are saved in.

    Raises:
        CheckpointError: a pickle needs or contains anything other than tensors.
    """
    if not files.are_safetensors:
        _logger.warning(
            "%s has .bin weights; they are read without running code (FLORENCE2_SAFETENSORS_ONLY=1 rejects them)",
            files.name,
        )
    weights: dict[str, Tensor] = {}
    for file in files.weights:
        path = files.folder / file
        weights |= load_file(path) if files.are_safetensors else _unpickled(path)
    return weights


def _unpickled(path: Path) -> dict[str, Tensor]:
    # Files from before PyTorch 1.6 are not zip archives and cannot be mapped.
    is_mappable = zipfile.is_zipfile(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mappable)
    except pickle.UnpicklingError as error:
        found = _UNSUPPORTED_GLOBAL.search(str(error))
        needs = f"needs {found[1]}, but only tensors are loaded" if found else "is not a pickle of tensors only"
        raise CheckpointError(f"{path.name} {needs}; its code is not run") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds an object of type {type(content).__name__}, not named tensors")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path.name} holds type {type(value).__name__} under {key!r}, not only tensors")
    return dict(content)
