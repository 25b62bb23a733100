"""Files on this machine and in buckets, by fsspec."""

import gzip
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from florence2.bulk.extras import MissingPackageError, load_package
from florence2.errors import Florence2Error, InvalidArgumentError

_PROTOCOL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")
_PART: Final = ".part"

MOST_BYTES: Final = 2**30
"""The maximum size of an image file: larger ones are not read, because no server accepts them."""


def is_url(path: str) -> bool:
    """Whether a path has a protocol, e.g. `s3://`. One letter is a drive of Windows."""
    return _PROTOCOL.match(path) is not None


@dataclass(frozen=True)
class Location:
    """A file or a folder.

    Attributes:
        url: a path on this machine, or a URL, as a person would write it.
        system: its fsspec file system.
        path: the path in that file system.
    """

    url: str
    system: Any
    path: str

    @classmethod
    def of(cls, url: str | os.PathLike[str]) -> "Location":
        """The location of a path or a URL.

        Raises:
            InvalidArgumentError: the protocol is not known.
            MissingPackageError: fsspec, or the package for this protocol, is not installed.
        """
        text = os.fspath(url)
        core = load_package("fsspec.core")
        if not text:
            raise InvalidArgumentError.of_field("url", text, "a path or a URL")
        if not is_url(text):
            # Not by fsspec, which reads `::` in a file's name as several URLs.
            local = load_package("fsspec").filesystem("file")
            return cls(text, local, local._strip_protocol(text))
        try:
            # A run lists each folder once: keeping the listings would only take memory.
            system, path = core.url_to_fs(text, use_listings_cache=False)
        except ValueError as error:
            raise InvalidArgumentError.of_field("url", text, f"a path or a URL that fsspec knows ({error})") from error
        except ImportError as error:
            protocol = text.partition("://")[0]
            raise MissingPackageError(f"{protocol}:// needs another package: {error}") from error
        return cls(text, system, path)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        protocols = self.system.protocol
        return "file" in ((protocols,) if isinstance(protocols, str) else protocols)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> "Location":
        """The folder that it is in."""
        return self.sibling(self.path.rstrip("/").rpartition("/")[0] or "/")

    def sibling(self, path: str) -> "Location":
        """Another path of the same file system."""
        url = path if self.is_local and not is_url(self.url) else self.system.unstrip_protocol(path)
        return replace(self, url=url, path=path)

    def child(self, name: str) -> "Location":
        """A path in this folder."""
        return replace(self, url=f"{self.url.rstrip('/')}/{name}", path=f"{self.path.rstrip('/')}/{name}")

    def resolve(self, path: str) -> "Location":
        """The location of a path in a file of this folder: relative to the folder, absolute, or a URL."""
        if is_url(path):
            return Location.of(path)
        return self.sibling(path) if path.startswith("/") else self.child(path)

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return bool(self.system.exists(self.path))

    def is_folder(self) -> bool:
        """Whether it is a folder, or the prefix of other paths in a bucket."""
        return bool(self.system.isdir(self.path))

    def is_special(self) -> bool:
        """Whether a path of this machine is a pipe, a device or a socket."""
        path = Path(self.path)
        return path.exists() and not (path.is_file() or path.is_dir())

    def is_in(self, other: "Location") -> bool:
        """Whether it is another location, or in that folder."""
        path, folder = self.path.rstrip("/"), other.path.rstrip("/")
        return bool(self.system == other.system) and (path == folder or path.startswith(f"{folder}/"))

    def children(self) -> list[tuple[str, bool]]:
        """The names in a folder, in the order of their code points, and whether each is a folder."""
        entries = self.system.ls(self.path, detail=True)
        own = self.path.rstrip("/")
        named = [(entry["name"].rstrip("/"), entry["type"] == "directory") for entry in entries]
        # Some buckets list an empty object with the folder's own name.
        return sorted(
            (path.rpartition("/")[2], is_folder) for path, is_folder in named if path.strip("/") != own.strip("/")
        )

    def read(self) -> bytes:
        """The file's bytes."""
        if self.is_local and self.is_special():
            raise ValueError(f"{self.url} is no regular file")  # a pipe or a device might never end
        if self.is_local and (size := Path(self.path).stat().st_size) > MOST_BYTES:
            raise ValueError(f"{self.url} has {size:,} bytes, more than an image can have")
        return bytes(self.system.cat_file(self.path))

    def open(self, compression: str | None = None) -> Any:
        """The file, open for reading bytes.

        Args:
            compression: `"infer"` decompresses a file whose name ends with e.g. `.gz`.
        """
        core = load_package("fsspec.core")
        return core.OpenFile(self.system, self.path, "rb", core.get_compression(self.path, compression)).open()

    @contextmanager
    def replaced(self) -> Iterator[Any]:
        """A file to write bytes to, which replaces this one when the block ends. Folders are created."""
        if self.is_local:
            target = Path(self.path).resolve()  # a link stays one
            target.parent.mkdir(parents=True, exist_ok=True)
            part = Path(f"{target}{_PART}")
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            return
        # A file of fsspec that is closed after an error would upload what it has.
        with tempfile.TemporaryDirectory(prefix="florence2-") as folder:
            part = Path(folder) / "part"
            with part.open("wb") as file:
                yield file
            self._upload(part)

    def _upload(self, file: Path) -> None:
        try:
            self.system.put_file(str(file), self.path)
        except FileNotFoundError:
            # Not before: in a bucket, which has no folders, this may create the bucket itself.
            self.system.makedirs(self.parent.path, exist_ok=True)
            self.system.put_file(str(file), self.path)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        if self.exists():
            self.system.rm_file(self.path)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Raise what a storage or the reader of a format raises as an `OSError` that names the file or folder.

    Raises:
        OSError: it cannot be read, listed or written.
    """
    try:
        yield
    except Florence2Error:
        raise
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            raise
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error


def check_writable(output: Location, *, is_folder: bool) -> None:
    """Check that an output can be written, before the run begins.

    Raises:
        OSError: it cannot.
    """
    if not is_folder and output.is_local and output.is_folder():
        raise IsADirectoryError(f"{output.url} is a folder")
    if output.is_local and output.is_special():
        raise OSError(f"{output.url} is no regular file")  # a rename would replace the device
    folder = output if is_folder else output.parent
    probe = folder.child(f".florence2-{os.getpid()}")
    with probe.replaced():
        pass
    probe.remove()
