"""Large images, passed to the engine as in-memory files: a gRPC message is copied eight times, a file twice."""

import hashlib
import os
import weakref
from pathlib import Path

from florence2.engine.v1.engine_pb2 import GenerateRequest

_LARGE_BYTES = 4 * 1024 * 1024  # below this, a message takes a few milliseconds, and a file would too


class ImageFile:
    """An in-memory file (memfd_create(2)) with an image; it exists for as long as this object does.

    Attributes:
        path: where another process of the same user can open it.

    Raises:
        OSError: there is not enough memory, or there are too many open files.
    """

    def __init__(self, image: bytes) -> None:
        descriptor = os.memfd_create("florence2-image")
        weakref.finalize(self, os.close, descriptor)
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        with open(descriptor, "wb", closefd=False) as file:
            file.write(image)


def image_file(image: bytes) -> ImageFile | None:
    """The image as a file; None if it is too small to be worth one, or if creating one fails: a message works too."""
    if len(image) < _LARGE_BYTES:
        return None
    try:
        return ImageFile(image)
    except OSError:
        return None


def image_hash(call: GenerateRequest) -> str:
    """The SHA-256 of a call's image, in hexadecimal."""
    image = Path(call.image_file).read_bytes() if call.image_file else call.image
    return hashlib.sha256(image).hexdigest()
