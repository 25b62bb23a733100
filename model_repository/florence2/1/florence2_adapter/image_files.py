"""Large images on their way to the engine, as files in memory: a gRPC message is copied eight times, a file twice."""

import hashlib
import os
import weakref
from pathlib import Path

from florence2.engine.v1.engine_pb2 import GenerateRequest

_LARGE_BYTES = 4 * 1024 * 1024  # below, a message takes a few milliseconds, and so would a file


class ImageFile:
    """A file that lies on no disk, memfd_create(2), with an image; it is there for as long as this object lives.

    Attributes:
        path: under which another process of this user can open it.

    Raises:
        OSError: there is no room for it, or for another open file.
    """

    def __init__(self, image: bytes) -> None:
        descriptor = os.memfd_create("florence2-image")
        weakref.finalize(self, os.close, descriptor)
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        with open(descriptor, "wb", closefd=False) as file:
            file.write(image)


def image_file(image: bytes) -> ImageFile | None:
    """The image as a file; None if it is too small to be worth one, or if there is no room: a message works too."""
    if len(image) < _LARGE_BYTES:
        return None
    try:
        return ImageFile(image)
    except OSError:
        return None


def image_hash(call: GenerateRequest) -> str:
    """SHA-256 of a call's image, in hexadecimal."""
    image = Path(call.image_file).read_bytes() if call.image_file else call.image
    return hashlib.sha256(image).hexdigest()
