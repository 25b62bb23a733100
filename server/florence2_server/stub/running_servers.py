"""Finds the running servers of this user, by the folders of their sockets, for commands that are not their children."""

import os
import re
import stat
import tempfile
from pathlib import Path

from florence2_server.errors import ConfigError
from florence2_server.stub.sockets import ADMIN, folder_of

_FOLDER = re.compile(r"florence2-stubs-(?P<user>\d+)-(?P<tritonserver>\d+)-\d+", re.ASCII)
_OWN = 0o700


def server_folder(tritonserver: int | None = None) -> Path:
    """The folder of the sockets of a running server.

    Args:
        tritonserver: its process id; None for the only server of this user.

    Raises:
        ConfigError: there is no such server, or there are several; the message names them.
    """
    folders = _folders()
    known = ", ".join(map(str, sorted(folders))) or "none that runs"
    if tritonserver is not None:
        if tritonserver not in folders:
            raise ConfigError(f"--tritonserver: got {tritonserver}, expected the process id of a server: {known}")
        return folders[tritonserver]
    if not folders:
        raise ConfigError(
            f"no server of user {os.getuid()} runs here: there is no folder of its sockets in {tempfile.gettempdir()}, "
            "which TMPDIR sets, as it does for the server"
        )
    if len(folders) > 1:
        raise ConfigError(f"several servers run here; choose one with --tritonserver: {known}")
    return next(iter(folders.values()))


def admin_sockets(folder: Path, model: str | None = None) -> dict[str, Path]:
    """The sockets for commands of a served model, by the names of its engines, sorted.

    Args:
        folder: of the server's sockets.
        model: the name of the model; None for the only one.

    Raises:
        ConfigError: there is no such model, or there are several; the message names them.
    """
    models: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob(f"*.{ADMIN}")):
        name, engine = path.name.removesuffix(f".{ADMIN}").split(".", 1)  # neither has a dot
        models.setdefault(name, {})[engine] = path
    known = ", ".join(models) or "none that is ready"
    if model is not None:
        if model not in models:
            raise ConfigError(f"--model: got {model!r}, expected a model of the server: {known}")
        return models[model]
    if not models:
        raise ConfigError("the server has no model that is ready")
    if len(models) > 1:
        raise ConfigError(f"the server has several models; choose one with --model: {known}")
    return next(iter(models.values()))


def _folders() -> dict[int, Path]:
    """The folders of running servers, by the process ids of their tritonservers."""
    folders = {}
    for path in Path(tempfile.gettempdir()).glob(f"florence2-stubs-{os.getuid()}-*"):
        found = _FOLDER.fullmatch(path.name)
        if found and _is_of(path, int(found["tritonserver"])):
            folders[int(found["tritonserver"])] = path
    return folders


def _is_of(path: Path, tritonserver: int) -> bool:
    """Whether a folder belongs to a process that runs, and only this user can have put sockets into it."""
    try:
        found = path.lstat()
        is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and found.st_mode & 0o777 == _OWN
        return is_own and folder_of(tritonserver) == path
    except OSError:  # of a server that has ended
        return False
