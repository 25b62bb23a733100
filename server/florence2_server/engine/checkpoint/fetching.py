"""Download of a checkpoint into a folder, e.g. on a volume or in a Docker image. Imports no torch."""

import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from florence2_server.engine.checkpoint import hub
from florence2_server.engine.checkpoint.files import CONFIG_FILES, hub_id, needed
from florence2_server.engine.errors import CheckpointError

_logger = logging.getLogger(__name__)

# Written after everything has been downloaded. Pods that share a volume may write it at the same time, with the same
# content.
_RECORD = "fetched.json"


@dataclass(frozen=True)
class _Fetched:
    """What an earlier fetch left in a folder.

    Attributes:
        repository: `owner/name`.
        asked_for: the requested branch, tag or commit; None for the main branch.
        revision: the commit.
        files: names of all files that serving needs.
    """

    repository: str
    asked_for: str | None
    revision: str
    files: list[str]


def fetch(name: str, folder: Path, *, safetensors_only: bool) -> None:
    """Download only the files that serving needs, in one weights format, into a folder.

    Files that are already there are not downloaded again. If `name` is a commit that the folder holds completely, the
    hub is not contacted. If `name` is a branch that the folder holds, and the hub cannot be reached, the folder stays
    as it is. Several processes may fetch into one folder at the same time.

    Args:
        name: `owner/name` or `owner/name@revision`.
        folder: the destination; created if it is missing.
        safetensors_only: reject `.bin` weights.

    Raises:
        CheckpointError: there is no such checkpoint, it lacks a file that serving needs, the folder holds another
            checkpoint, or the hub cannot be reached.
    """
    if Path(name).is_dir():
        raise CheckpointError(f"checkpoint {name!r} is already a folder")
    try:
        _fetch(name, folder, safetensors_only)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {name!r}: {error}") from error


def _fetch(name: str, folder: Path, safetensors_only: bool) -> None:
    repository, revision = hub_id(name)
    earlier = _earlier(folder)
    if earlier is not None and earlier.repository != repository:
        raise CheckpointError(f"{folder} already holds {earlier.repository}")
    if earlier is not None and revision == earlier.revision and _is_complete(earlier, folder, safetensors_only):
        _logger.info("%s is already complete", name)
        return
    try:
        fetched = _download(repository, revision, folder, safetensors_only)
    except hub.HubUnreachableError as error:
        if earlier is None or revision != earlier.asked_for or not _is_complete(earlier, folder, safetensors_only):
            raise
        _logger.warning("%s stays at revision %s: %s", name, earlier.revision, error)
        return
    _record(fetched, earlier, folder)
    _logger.info("%s is complete, at revision %s", name, fetched.revision)


def _download(repository: str, revision: str | None, folder: Path, safetensors_only: bool) -> _Fetched:
    files: list[str] = []

    def choose(names: hub.Names, read: hub.Read) -> list[str]:
        def read_index(file: str) -> Path:
            files.append(file)
            return read(file)

        files.extend(needed(names, read_index, safetensors_only))
        return files

    snapshot = hub.download(repository, revision, choose, always=CONFIG_FILES, into=folder)
    return _Fetched(repository, revision, snapshot.revision, files)


def _earlier(folder: Path) -> _Fetched | None:
    """The record of an earlier fetch."""
    try:
        return _Fetched(**json.loads((folder / _RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_complete(fetched: _Fetched, folder: Path, safetensors_only: bool) -> bool:
    is_rejected = safetensors_only and any(file.endswith(".bin") for file in fetched.files)
    return not is_rejected and all((folder / file).is_file() for file in fetched.files)


def _record(fetched: _Fetched, earlier: _Fetched | None, folder: Path) -> None:
    """Record what was fetched, and remove files that only an earlier commit has, because they would be read too."""
    for file in set(earlier.files if earlier else ()) - set(fetched.files):
        (folder / file).unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{_RECORD}.", delete=False, encoding="utf-8") as record:
        json.dump(asdict(fetched), record, indent=2)
    Path(record.name).chmod(0o644)
    os.replace(record.name, folder / _RECORD)  # noqa: PTH105 - a name, not a Path
