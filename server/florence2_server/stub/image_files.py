"""Large images, passed to the engine as in-memory files: a gRPC message is copied eight times, a file twice."""

import hashlib
import logging
import os
import weakref
from pathlib import Path

_logger = logging.getLogger(__name__)

_LARGE_BYTES = 4 * 1024 * 1024  # below this, a message takes a few milliseconds, and a file would too


class ImageFile:
    """An in-memory file (memfd_create(2)) with an image; it exists for as long as this object does.

    Attributes:
        path: where another process of the same user can open it, unless a sandbox or a hardened /proc forbids that.
        size: in bytes.

    Raises:
        OSError: there is not enough memory, or there are too many open files.
    """

    def __init__(self, image: bytes) -> None:
        descriptor = os.memfd_create("florence2-image")
        weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor
        self.size = len(image)
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        with open(descriptor, "wb", closefd=False) as file:
            file.write(image)

    def read(self) -> bytes:
        """The image."""
        return os.pread(self._descriptor, self.size, 0)


class ImageFiles:
    """Makes files for large images, for as long as the engine can open them."""

    def __init__(self) -> None:
        self._are_readable = True

    def file(self, image: bytes) -> ImageFile | None:
        """The image as a file; None if a message is as good or the only way.

        A message it is if the image is small, if a file cannot be created, or if the engine could not open one before.
        """
        if len(image) < _LARGE_BYTES or not self._are_readable:
            return None
        try:
            return ImageFile(image)
        except OSError:
            return None

    def stop(self, reason: str) -> None:
        """Make no more files: the engine could not read one."""
        if self._are_readable:
            _logger.warning("large images are sent to the engine in messages from now on, which is slower: %s", reason)
        self._are_readable = False


def image_hash(image: bytes) -> str:
    """The SHA-256 of an image, in hexadecimal."""
    return hashlib.sha256(image).hexdigest()
