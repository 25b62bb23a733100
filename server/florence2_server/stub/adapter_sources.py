"""The adapters that are to be served: those of the setting, whose folder is watched, and those of operators' commands.

An adapter has a version, which its files determine. What has changed in the folder is taken once it is the same in two
polls in a row, so that no folder is read while it is being copied.
"""

import hashlib
import logging
import os
import threading
import time
from math import inf
from pathlib import Path

from florence2.adapter_names import ADAPTER_NAME_RULE, is_adapter_name

from florence2_server.adapter_settings import ADAPTER_FILE, is_folder
from florence2_server.config import AdapterConfig
from florence2_server.supervision.engine_adapters import EngineAdapters, Origin, WantedAdapter

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_VERSION_CHARACTERS = 16
_UNREADABLE = "unreadable"  # the version of a folder that cannot be listed; the engine reports why


class SourceError(Exception):
    """A command about an adapter cannot be carried out. The message names the adapter and says why."""


class AdapterSources:
    """The adapters that are to be served. Thread-safe.

    Args:
        config: the setting.
        poll_seconds: the least time between two polls of the folder.
    """

    def __init__(self, config: AdapterConfig, poll_seconds: float = _POLL_SECONDS) -> None:
        self._folder = config.folder
        self._poll_seconds = poll_seconds
        self._pairs = {
            name: WantedAdapter(name, source, version_of(source), Origin.SETTING)
            for name, source in config.pairs.items()
        }
        self._lock = threading.Lock()  # of the two below; a folder that hangs does not hold it
        self._found: dict[str, WantedAdapter] = {}  # in the folder; in the order in which they appeared
        self._loaded: dict[str, WantedAdapter] = {}  # by commands
        self._polling = threading.Lock()  # of all below
        self._last_poll: dict[str, str] = {}
        self._skipped: set[str] = set()
        self._is_readable = True
        self._polled = -inf
        self._poll()  # an engine takes longer to start than there is between two polls, and so starts with all of them

    def wanted(self) -> list[WantedAdapter]:
        """The adapters that are to be served now. Those of the setting come first, and win over commands."""
        self._poll()
        with self._lock:
            of_setting = self._pairs | self._found
            loaded = [each for name, each in self._loaded.items() if name not in of_setting]
            return [*of_setting.values(), *loaded]

    def load(self, name: str, source: str) -> WantedAdapter | None:
        """Want an adapter that an operator names. Returns what the same name stood for until now.

        Raises:
            SourceError: the setting names such an adapter.
        """
        with self._lock:
            self._check_is_free(name)
            former = self._loaded.get(name)
            self._loaded[name] = WantedAdapter(name, source, version_of(source), Origin.COMMAND)
            return former

    def restore(self, name: str, former: WantedAdapter | None) -> None:
        """Undo a `load` that returned `former`."""
        with self._lock:
            if former is None:
                self._loaded.pop(name, None)
            else:
                self._loaded[name] = former

    def unload(self, name: str) -> None:
        """Stop wanting an adapter that a command has loaded.

        Raises:
            KeyError: there is none of this name.
            SourceError: it comes from the setting.
        """
        with self._lock:
            self._check_is_free(name)
            del self._loaded[name]

    def _poll(self) -> None:
        """Look into the folder, unless it has just been done, or another thread does it."""
        if self._folder is None or not self._polling.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            if now - self._polled >= self._poll_seconds:
                self._polled = now
                self._take(self._folder, self._versions(self._folder))
        finally:
            self._polling.release()

    def _take(self, folder: Path, versions: dict[str, str] | None) -> None:
        """Take what is the same twice in a row."""
        if versions is None:
            return
        last, self._last_poll = self._last_poll, versions
        with self._lock:
            for name in [name for name in self._found if name not in versions and name not in last]:
                del self._found[name]
            for name, version in versions.items():
                if last.get(name) == version and (name not in self._found or self._found[name].version != version):
                    self._found[name] = WantedAdapter(name, os.fspath(folder / name), version, Origin.FOLDER)

    def _check_is_free(self, name: str) -> None:
        """Check that an adapter does not come from the setting. The lock is held."""
        if (found := self._found.get(name)) is not None:
            raise SourceError(f"adapter {name!r} comes from the folder of FLORENCE2_ADAPTERS: remove {found.source}")
        if name in self._pairs:
            raise SourceError(f"adapter {name!r} is set by FLORENCE2_ADAPTERS, which is read when the server starts")

    def _versions(self, folder: Path) -> dict[str, str] | None:
        """The versions of the adapters in the folder, by name; None if it cannot be read."""
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
        except OSError as error:
            if self._is_readable:
                _logger.warning("adapters: the folder cannot be read, and stays as it was: %s", error)
            self._is_readable = False
            return None
        self._is_readable = True
        adapters = [name for name in names if _is_adapter(folder / name)]
        self._report_invalid({name for name in adapters if not is_adapter_name(name)})
        return {name: version_of(folder / name) for name in adapters if is_adapter_name(name)}

    def _report_invalid(self, names: set[str]) -> None:
        for name in sorted(names - self._skipped):
            _logger.warning(
                "adapters: got the name %r, expected %s; this folder is not served", name, ADAPTER_NAME_RULE
            )
        self._skipped |= names


class AdapterWatcher:
    """Has the engine serve what has changed, once a second.

    Args:
        adapters: those that the engine serves.
    """

    def __init__(self, adapters: EngineAdapters) -> None:
        self._adapters = adapters
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching. The engine has been stopped, so that it is not loading anything."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            try:
                self._adapters.update()
            except Exception:
                _logger.exception("a change of the adapters failed; the next one is tried all the same")


def _is_adapter(folder: Path) -> bool:
    try:
        return (folder / ADAPTER_FILE).is_file()
    except OSError:  # this user may not look into it
        return False


def version_of(source: str | Path) -> str:
    """The version of an adapter: a hash of the names, sizes and times of its files; empty if it is no folder."""
    if not is_folder(source):
        return ""
    try:
        files = sorted((entry.name, _state_of(entry)) for entry in os.scandir(source))
    except OSError:
        return _UNREADABLE
    return hashlib.sha256(repr(files).encode()).hexdigest()[:_VERSION_CHARACTERS]


def _state_of(entry: "os.DirEntry[str]") -> tuple[int, ...]:
    """What differs if a file does; empty if it is no file, or a link that leads nowhere."""
    try:
        found = entry.stat()
        is_file = entry.is_file()
    except OSError:
        return ()
    # Archives restore the times of modification, which may be equal in all versions; nothing sets those of change.
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns) if is_file else ()
