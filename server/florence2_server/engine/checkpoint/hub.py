"""Downloads from the Hugging Face hub.

`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT` and `HF_HUB_OFFLINE` have the same meaning as in `huggingface_hub`.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from florence2_server.engine.errors import CheckpointError

_logger = logging.getLogger(__name__)

# The base error of the HTTP library, which differs between releases of huggingface_hub.
_HTTP_ERROR: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]

# By default the hub's client waits forever, and a firewall that drops packets would keep a full cache from being used.
_INFO_SECONDS = 10.0
# Statuses below 500 that are no verdict on the repository: timeouts and rate limits, as after the restart of a fleet.
_TRANSIENT_STATUSES = (408, 425, 429)

Names = Collection[str]
Read = Callable[[str], Path]
Needed = Callable[[Names, Read], list[str]]


class HubUnreachableError(CheckpointError):
    """The hub cannot be reached, and the checkpoint is not on this machine."""


@dataclass(frozen=True)
class Snapshot:
    """A repository's files at one commit, in the hub's cache or in a local folder.

    Attributes:
        folder: the folder that holds them.
        revision: the commit.
        names: the names of all files in the repository, downloaded or not; offline, of those in the cache.
    """

    folder: Path
    revision: str
    names: frozenset[str]


def download(
    repository: str, revision: str | None, needed: Needed, always: Sequence[str], into: Path | None = None
) -> Snapshot:
    """Download only the needed files of a repository, into the cache or a folder.

    Args:
        repository: `owner/name`.
        revision: a branch, tag or commit; None for the main branch.
        needed: selects the files to download from the names of all; may read a file to do so.
        always: names of files that are needed if the repository has them.
        into: a folder to download into instead of the cache. Unchanged files that are already there are kept.

    Raises:
        HubUnreachableError: the hub cannot be reached, and the files are not all in the cache.
        CheckpointError: there is no such repository or revision, or access to it is denied.
    """
    if constants.HF_HUB_OFFLINE:
        return _cached(repository, revision, "HF_HUB_OFFLINE is set", always, into)
    try:
        return _fetched(repository, revision, needed, into)
    except GatedRepoError:
        raise CheckpointError("access is restricted; accept the repository's terms and set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise CheckpointError(f"the repository has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise CheckpointError("no such folder, and no such repository on the hub, or it needs HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = 500 if error.response is None else error.response.status_code
        if status < 500 and status not in _TRANSIENT_STATUSES:
            raise CheckpointError(f"the hub rejected the request: {_one_line(error)}") from None
        return _cached(repository, revision, _one_line(error), always, into)
    except HFValidationError as error:
        raise CheckpointError(f"not a hub id: {_one_line(error)}") from None
    except CheckpointError:
        raise
    except (_HTTP_ERROR, OSError) as error:
        return _cached(repository, revision, _one_line(error), always, into)


def _fetched(repository: str, revision: str | None, needed: Needed, into: Path | None) -> Snapshot:
    info = HfApi().model_info(repository, revision=revision, timeout=_INFO_SECONDS)
    if into is not None:  # a folder has no named revisions: all files must be of one commit
        revision = info.sha
    _logger.info("fetching %s at revision %s from the hub", repository, info.sha)
    names = frozenset(sibling.rfilename for sibling in info.siblings or ())
    # By the name of the revision, not the commit, so that the cache can resolve it if the hub cannot be reached.
    files = needed(names, lambda file: Path(hf_hub_download(repository, file, revision=revision, local_dir=into)))
    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=files, local_dir=into))
    return Snapshot(folder, folder.name if into is None else str(info.sha), names)


def _cached(repository: str, revision: str | None, reason: str, always: Sequence[str], into: Path | None) -> Snapshot:
    """The snapshot that an earlier download left in the cache."""
    if into is not None:
        raise HubUnreachableError(f"it cannot be downloaded: {reason}")
    try:
        # The cache knows the names of all files in the repository, so it is an error if one of these is missing.
        texts = list(always)
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=texts))
    except IncompleteSnapshotError:
        raise HubUnreachableError(f"only part of it is in the cache, and it cannot be downloaded: {reason}") from None
    except (LocalEntryNotFoundError, OSError, ValueError):
        raise HubUnreachableError(f"it is not in the cache, and it cannot be downloaded: {reason}") from None
    _logger.warning("%s is served from the cache, at revision %s: %s", repository, folder.name, reason)
    names = frozenset(path.name for path in folder.iterdir())
    return Snapshot(folder, folder.name, names)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
