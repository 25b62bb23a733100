"""The unix sockets through which the stubs of one tritonserver reach each other.

The stub of a served model serves, with a socket of each kind for each engine. The stubs of the models beside it (its
health, its streams) are clients. They find each other by the tritonserver that started them.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from florence2_server.supervision.socket_path import check_length

STATE: Final = "state.sock"
STREAM: Final = "stream.sock"
ADMIN: Final = "admin.sock"
_START_TIME: Final = 19  # index among the fields of /proc/PID/stat that follow the name, proc(5)
_OWN: Final = 0o700


class FolderError(Exception):
    """The folder of the sockets cannot be used. The message names the path and what is wrong with it, in one line."""


def create_folder() -> Path:
    """Create the folder of this tritonserver's sockets, which no other user can access.

    Raises:
        FolderError: it cannot be created, or another user may have created what is there: its name can be guessed.
    """
    folder = folder_of(os.getppid())
    try:
        folder.mkdir(mode=_OWN, exist_ok=True)
        fault = _fault_of(folder.lstat())
    except OSError as error:
        raise FolderError(f"{folder}: the folder for sockets cannot be created: {error.strerror}") from None
    if fault is not None:
        raise FolderError(f"{folder}: {fault}")
    return folder


def socket_path(model: str, engine: str, kind: str) -> Path:
    """The path of a socket, in the folder of this tritonserver, which is created if need be.

    Args:
        model: the name of the served model.
        engine: the name of the engine, unique within the model.
        kind: `STATE`, `STREAM` or `ADMIN`.

    Raises:
        FolderError: the folder cannot be used.
        ConfigError: the path of a socket of any kind is too long.
    """
    prefix = create_folder() / f"{model}.{engine}"
    check_length(Path(f"{prefix}.{STREAM}"), "a shorter TMPDIR, or a shorter name for the model")  # the longest
    return Path(f"{prefix}.{kind}")


def served_sockets(model: str, kind: str) -> dict[str, Path]:
    """The sockets of one kind of a served model, by the names of the engines, sorted."""
    folder = folder_of(os.getppid())
    prefix, suffix = f"{model}.", f".{kind}"
    try:
        if _fault_of(folder.lstat()) is not None:
            return {}
        paths = sorted(folder.glob(f"{prefix}*{suffix}"))
    except FileNotFoundError:  # no stub has created it, or the last one has removed it
        return {}
    return {path.name.removeprefix(prefix).removesuffix(suffix): path for path in paths}


def _fault_of(found: os.stat_result) -> str | None:
    """Why what is at the path of the folder cannot be it; None if it can."""
    if not stat.S_ISDIR(found.st_mode):
        return f"got {'a link' if stat.S_ISLNK(found.st_mode) else 'a file'}, expected a folder"
    if found.st_uid != os.getuid():
        return f"got a folder of user {found.st_uid}, expected one of user {os.getuid()}"
    mode = stat.S_IMODE(found.st_mode) & 0o777  # a folder may inherit the bit for its group from the one around it
    return None if mode == _OWN else f"got a folder of mode {mode:04o}, expected {_OWN:04o}"


def folder_of(tritonserver: int) -> Path:
    """The path of the folder of a running tritonserver's sockets."""
    # The start time is part of the name because process ids are reused, above all in containers, and the folder of a
    # killed server may still exist.
    start = Path(f"/proc/{tritonserver}/stat").read_text().rsplit(")", 1)[1].split()[_START_TIME]
    return Path(tempfile.gettempdir()) / f"florence2-stubs-{os.getuid()}-{tritonserver}-{start}"
