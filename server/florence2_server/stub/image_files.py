"""In-memory files that pass large images to the engine: a gRPC message is copied eight times, a file twice."""

import hashlib
import logging
import os
import weakref
from pathlib import Path

from florence2_server.v1.engine_pb2 import GenerateRequest

_logger = logging.getLogger(__name__)

_LARGE_BYTES = 4 * 1024 * 1024  # a smaller image takes a few milliseconds, as a message or as a file


class ImageFile:
    """An in-memory file (memfd_create(2)) that holds an image; it lives as long as this object.

    Attributes:
        path: where another process of the same user can open the file, unless a sandbox or a hardened /proc forbids it.
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
        """Read the image."""
        return os.pread(self._descriptor, self.size, 0)


class ImageFiles:
    """Creates files for images, unless the engine turns out to be unable to open them."""

    def __init__(self) -> None:
        self._are_readable = True

    def file(self, image: bytes, *, is_shared: bool = False) -> ImageFile | None:
        """Create a file for an image; None if the image has to travel in the message.

        That is so if the image is small, if no file can be created, or if the engine was unable to open one before.

        Args:
            image: the encoded image.
            is_shared: whether several generations are about it: then even a small one is worth a file.
        """
        if not (is_shared or len(image) >= _LARGE_BYTES) or not self._are_readable:
            return None
        try:
            return ImageFile(image)
        except OSError:
            return None

    def stop(self, reason: str) -> None:
        """Create no more files, because the engine could not read one."""
        if self._are_readable:
            _logger.warning("images are sent to the engine in messages from now on, which is slower: %s", reason)
        self._are_readable = False


class ElementImage:
    """The image of a batch element: in a file if that is faster, else in each message to the engine.

    Args:
        image: the encoded image.
        files: creates the file.
        is_shared: whether several generations are about it.
    """

    def __init__(self, image: bytes, files: ImageFiles, *, is_shared: bool) -> None:
        self._file = files.file(image, is_shared=is_shared)
        self._is_file_readable = True
        self._bytes = b"" if self._file else image

    def write_to(self, message: GenerateRequest) -> None:
        """Add the image to a message to the engine."""
        if self._file and self._is_file_readable:
            message.image_file, message.image_file_bytes = str(self._file.path), self._file.size
        else:
            message.image = self._file.read() if self._file else self._bytes

    def leave_file(self) -> None:
        """Put the image into the messages from now on, because the engine cannot read the file.

        The file remains open, because messages that were sent before name it.
        """
        self._is_file_readable = False

    def hash(self) -> str:
        """The SHA-256 of the image, in hexadecimal."""
        return hashlib.sha256(self._file.read() if self._file else self._bytes).hexdigest()
