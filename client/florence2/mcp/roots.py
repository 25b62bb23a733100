"""Image files that a tool call names by path: only those inside folders that the operator allows."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from florence2.errors import InvalidArgumentError

_MOST_CHARACTERS: Final = 4096  # more than systems accept; resolving takes a time that grows with the square
_URL_STARTS: Final = ("http://", "https://", "ftp://", "file://", "data:")
_SHARED_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_FOLDER_FLAGS: Final = _SHARED_FLAGS | getattr(os, "O_DIRECTORY", 0)
# Opening a named pipe would otherwise block until another process writes to it.
_FILE_FLAGS: Final = _SHARED_FLAGS | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
# Errors of a component that is missing, not a folder, or a link: in a loop, or made after the path was resolved.
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK})


class Roots:
    """Folders whose files may be read.

    A path is resolved first, and its real location must be inside a root. The file is then opened from the root down,
    one folder after the other, without following links. So nothing outside the roots is ever opened, even if a
    part of the path is replaced with a link in the meantime. Hard links cannot be distinguished from files: whoever can
    create them in a root decides what is inside.

    Args:
        folders: resolved here, once; each must exist. If empty, every path is refused.

    Raises:
        InvalidArgumentError: one is not a folder, or this system cannot open files relative to a folder.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = tuple(Path(os.path.realpath(folder)) for folder in folders)
        for folder in self._folders:
            if not folder.is_dir():
                raise InvalidArgumentError.of_field("--root", str(folder), "an existing folder")
        if self._folders and (os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW")):
            raise InvalidArgumentError.of_field(
                "--root", str(self._folders[0]), "nothing: this system cannot open files without following links"
            )

    @property
    def folders(self) -> tuple[Path, ...]:
        """The real paths of the folders."""
        return self._folders

    def read(self, path: str, most_bytes: int) -> bytes:
        """Read a file.

        Args:
            path: absolute, or relative to a root; of several roots, the first in which it exists.
            most_bytes: the largest size of the file.

        Returns:
            The file's bytes.

        Raises:
            InvalidArgumentError: the path is not that of a readable regular file inside a root, or the file is too
                large. The message says the same about all paths outside, whether or not there is such a file.
        """
        root, parts = self._located(path)
        try:
            descriptor = _open_beneath(root, parts)
        except OSError as error:
            is_missing = error.errno in _MISSING
            requirement = "an existing file" if is_missing else f"a readable file ({error.strerror})"
            raise InvalidArgumentError.of_field("path", path, requirement) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InvalidArgumentError.of_field("path", path, "a regular file")
            # A file may grow while it is read.
            data = _content(descriptor, most_bytes + 1) if status.st_size <= most_bytes else None
        finally:
            os.close(descriptor)
        if data is None or len(data) > most_bytes:
            raise InvalidArgumentError.of_field("path", path, f"a file of at most {most_bytes:,} bytes")
        return data

    def _located(self, path: str) -> tuple[Path, tuple[str, ...]]:
        """The root that a path is in, and the components below it, without links."""
        if not self._folders:
            requirement = (
                "no path, because this server was started without --root FOLDER, which allows it to read the files of "
                "a folder; send the image file itself as `image`"
            )
            raise InvalidArgumentError.of_field("path", path, requirement)
        if path.lower().startswith(_URL_STARTS):
            raise InvalidArgumentError.of_field("path", path, "a path; URLs are not fetched")
        if len(path) > _MOST_CHARACTERS:
            raise InvalidArgumentError.of_field("path", path, f"at most {_MOST_CHARACTERS:,} characters")
        if not path or "\0" in path:
            raise InvalidArgumentError.of_field("path", path, "the path of a file")
        found = [(root, parts) for root in self._folders if (parts := _below(root, path)) is not None]
        if not found:
            folders = ", ".join(map(str, self._folders))
            raise InvalidArgumentError.of_field("path", path, f"a file inside a folder given by --root: {folders}")
        return next((each for each in found if os.path.exists(each[0].joinpath(*each[1]))), found[0])  # noqa: PTH110 - raises nothing


def _below(root: Path, path: str) -> tuple[str, ...] | None:
    """The components of a path below a root after resolving links; None if it is not inside."""
    try:
        real = Path(os.path.realpath(root / path))
    except (OSError, ValueError):  # too long, or with characters that no path has
        return None
    return real.relative_to(root).parts if real.is_relative_to(root) else None


def _open_beneath(root: Path, parts: Sequence[str]) -> int:
    """Open a file for reading, without following links in any component."""
    folder = os.open(root, _FOLDER_FLAGS)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Without parts, the path is that of the root, which is not a regular file.
        return os.open(parts[-1] if parts else ".", _FILE_FLAGS, dir_fd=folder)
    finally:
        os.close(folder)


def _content(descriptor: int, most_bytes: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(most_bytes)
