"""Weight files, read into tensors by name.

A checkpoint's files are memory-mapped: pages take no memory until they are used. Code in a file is never run.
"""

import io
import logging
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load, load_file
from torch import Tensor

from florence2_server.engine.checkpoint.files import CheckpointFiles
from florence2_server.engine.errors import CheckpointError

_logger = logging.getLogger(__name__)

# In the error of torch's restricted unpickler: what a pickle needs besides tensors.
_UNSUPPORTED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(files: CheckpointFiles) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU, in the dtype in which they were saved.

    Raises:
        CheckpointError: a pickle contains anything but tensors.
    """
    if not files.are_safetensors:
        _logger.warning(
            "%s has .bin weights; they are read without running code (FLORENCE2_SAFETENSORS_ONLY=1 rejects them)",
            files.name,
        )
    weights: dict[str, Tensor] = {}
    for file in files.weights:
        weights |= read_tensors(files.folder / file)
    return weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `.bin` file, on the CPU, in the dtype in which they were saved.

    Raises:
        CheckpointError: a pickle contains anything but tensors.
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    # Files from before PyTorch 1.6 are not zip archives and cannot be mapped.
    return _unpickled(path, path.name, mmap=zipfile.is_zipfile(path))


def read_tensors_copied(path: Path, most_bytes: int) -> dict[str, Tensor]:
    """As `read_tensors`, for a file that another process may change: a mapped one that is truncated ends the process.

    Args:
        path: the file.
        most_bytes: the limit of its size and of the size of its tensors, which a small file can make large.

    Raises:
        CheckpointError: a pickle contains anything but tensors, or a size is over the limit.
    """
    with path.open("rb") as file:
        _check_size(path, os.fstat(file.fileno()).st_size, most_bytes)
        data = file.read(most_bytes + 1)
    _check_size(path, len(data), most_bytes)
    tensors = load(data) if path.suffix == ".safetensors" else _unpickled_data(path, data, most_bytes)
    _check_size(path, sum(tensor.nbytes for tensor in tensors.values()), most_bytes)
    return tensors


def _unpickled_data(path: Path, data: bytes, most_bytes: int) -> dict[str, Tensor]:
    file = io.BytesIO(data)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            _check_size(path, sum(member.file_size for member in archive.infolist()), most_bytes)
    file.seek(0)
    return _unpickled(file, path.name)


def _check_size(path: Path, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise CheckpointError(f"{path.name}: got {size} bytes, expected at most {most_bytes}")


def _unpickled(file: Path | BinaryIO, name: str, *, mmap: bool = False) -> dict[str, Tensor]:
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        found = _UNSUPPORTED_GLOBAL.search(str(error))
        needs = f"needs {found[1]}, but only tensors are loaded" if found else "is not a pickle of tensors only"
        raise CheckpointError(f"{name} {needs}; its code is not run") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} holds an object of type {type(content).__name__}, not named tensors")
    for key, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{name} holds type {type(value).__name__} under {key!r}, not only tensors")
    return dict(content)
