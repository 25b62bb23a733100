"""Large images on their way to the engine, as files: a gRPC message is copied eight times on its way, a file twice."""

import hashlib
import shutil
import tempfile
import weakref
from pathlib import Path

from florence2.engine.v1.engine_pb2 import GenerateRequest

_LARGE_BYTES = 4 * 1024 * 1024  # below, a message takes a few milliseconds, and so would a file
_ROOM = 2  # times the image's size: sockets of further engines have to have room beside it


class ImageFile:
    """A file with an image, for as long as this object lives."""

    def __init__(self, image: bytes, folder: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="image-", delete=False) as file:
            self.path = Path(file.name)
            weakref.finalize(self, self.path.unlink, missing_ok=True)
            file.write(image)


def image_file(image: bytes, folder: Path) -> ImageFile | None:
    """The image as a file in `folder`; None if it is too small to be worth one, or if there is no room for it."""
    if len(image) < _LARGE_BYTES:
        return None
    try:
        has_room = shutil.disk_usage(folder).free >= _ROOM * len(image)
        return ImageFile(image, folder) if has_room else None
    except OSError:
        return None


def image_hash(call: GenerateRequest) -> str:
    """SHA-256 of a call's image, in hexadecimal."""
    image = Path(call.image_file).read_bytes() if call.image_file else call.image
    return hashlib.sha256(image).hexdigest()
