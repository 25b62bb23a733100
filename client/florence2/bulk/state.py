"""The state of a run: the images that are done, in a file that survives a kill at any moment."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from florence2.errors import Florence2Error, InvalidArgumentError

_FILE: Final = "state.sqlite"
_VERSION: Final = 1
_ROWS: Final = 100  # in memory at once
_TABLES: Final = """
    CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS records (
        id TEXT NOT NULL UNIQUE, position INTEGER NOT NULL, line TEXT, error TEXT, CHECK (line NOTNULL OR error NOTNULL)
    );
    CREATE TEMP TABLE listed (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class StateInUseError(Florence2Error):
    """Another run uses the same state."""


class StateMismatchError(Florence2Error, ValueError):
    """The state is that of a run with other sources, tasks or options. The message says what differs."""


@dataclass(frozen=True)
class Record:
    """The outcome of one image.

    Attributes:
        id: the image's id.
        position: the image's number in its source.
        line: the results as JSON; None if the image has no results.
        error: why the image or one of its tasks failed, as JSON; None if everything succeeded.
    """

    id: str
    position: int
    line: str | None
    error: str | None


class State:
    """The records of a run, in a folder on this machine.

    A kill loses what was not committed, and nothing else: those images are processed again. The operating system
    unlocks the file when the process ends, however it ends.

    Args:
        folder: created if it does not exist.

    Raises:
        StateInUseError: another run uses it.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()  # the images are listed in one thread, and records written in another
        try:
            self._database = sqlite3.connect(folder / _FILE, timeout=0, isolation_level=None, check_same_thread=False)
            # The lock is kept from the first transaction to the end of the process.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_TABLES)
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise StateInUseError(f"another run uses {folder}; wait for it, or choose another --state") from error
            raise OSError(f"{folder / _FILE}: {error}") from error

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Store a new run's settings, or compare them with those of the run that is resumed.

        A run without records is a new one.

        Raises:
            StateMismatchError: they differ.
        """
        given = {name: json.dumps(value) for name, value in {**settings, "state": _VERSION}.items()}
        is_new = not self.counts()[0]
        with self._open():
            if is_new:
                self._database.execute("BEGIN")
                self._database.execute("DELETE FROM settings")
                self._database.executemany("INSERT INTO settings VALUES (?, ?)", sorted(given.items()))
                self._database.execute("COMMIT")
                return
            kept = dict(self._database.execute("SELECT name, value FROM settings"))
        names = sorted(name for name in {*given, *kept} if given.get(name) != kept.get(name))
        if names:
            differences = "; ".join(f"{name} was {kept.get(name)}, is {given.get(name)}" for name in names)
            raise StateMismatchError(f"{self.folder} is the state of another run: {differences}")

    def is_wanted(self, id_: str, *, retry_failed: bool) -> bool:
        """Whether an image is to be processed. Called once for each image of the run.

        Raises:
            InvalidArgumentError: the id has been listed before.
            OSError: the file system is full, or fails.
        """
        with self._open():
            try:
                self._database.execute("INSERT INTO listed VALUES (?)", (id_,))
            except sqlite3.IntegrityError:
                raise InvalidArgumentError.of_field("id", id_, "each id once in all sources") from None
            found = self._database.execute("SELECT error NOTNULL FROM records WHERE id = ?", (id_,)).fetchone()
        return found is None or (retry_failed and bool(found[0]))

    def write(self, records: Sequence[Record]) -> None:
        """Commit records, all or none of them. A record replaces an earlier one of the same image.

        Raises:
            OSError: the file system is full, or fails.
        """
        rows = [(record.id, record.position, record.line, record.error) for record in records]
        with self._open():
            self._insert(rows)

    def counts(self) -> tuple[int, int]:
        """The number of images that are done, failed ones included, and of those that failed."""
        with self._open():
            row = self._database.execute("SELECT COUNT(*), COUNT(error) FROM records").fetchone()
        return int(row[0]), int(row[1])

    def lines(self) -> Iterator[str]:
        """The results as JSON, in the order of the images."""
        return self._column("line")

    def errors(self) -> Iterator[str]:
        """The errors as JSON, in the order of the images."""
        return self._column("error")

    def close(self) -> None:
        """Release the state for other runs."""
        with self._lock:  # closed under a thread that reads, it would end the process
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        self._database.execute("BEGIN")
        self._database.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")

    @contextmanager
    def _open(self) -> Iterator[None]:
        """The database, for this thread alone."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise OSError(f"{self.folder / _FILE}: {error}") from error

    def _column(self, name: str) -> Iterator[str]:
        query = f"SELECT {name} FROM records WHERE {name} NOTNULL ORDER BY position, id"  # noqa: S608 - one of two
        with self._open():
            cursor = self._database.execute(query)
        while True:
            with self._open():
                rows = cursor.fetchmany(_ROWS)
            if not rows:
                return
            yield from (value for (value,) in rows)
