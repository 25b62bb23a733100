"""Weight files -> tensors by name.

Files are mapped into memory, not read: a page costs nothing until it is used. No code in a file is ever run.
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

# What torch's restricted unpickler says of a pickle that needs more than tensors.
_UNSUPPORTED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(files: CheckpointFiles) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on CPU, as they are saved.

    Raises:
        CheckpointError: a pickle needs more than tensors, or holds something else.
    """
    if not files.are_safetensors:
        _logger.warning(
            "%s has .bin weights; they are read without running code (FLORENCE2_SAFETENSORS_ONLY=1 refuses them)",
            files.name,
        )
    weights: dict[str, Tensor] = {}
    for file in files.weights:
        path = files.folder / file
        weights |= load_file(path) if files.are_safetensors else _unpickled(path)
    return weights


def _unpickled(path: Path) -> dict[str, Tensor]:
    # Files of before PyTorch 1.6 are no zip archives and cannot be mapped.
    is_mappable = zipfile.is_zipfile(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mappable)
    except pickle.UnpicklingError as error:
        found = _UNSUPPORTED_GLOBAL.search(str(error))
        needs = f"needs {found[1]}, which is more than tensors" if found else "is not a pickle of tensors alone"
        raise CheckpointError(f"{path.name} {needs}; it is not run") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, not named tensors")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path.name} holds a {type(value).__name__} under {key!r}, not tensors alone")
    return dict(content)
