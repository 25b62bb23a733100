"""The image as the caller holds it, as the bytes that travel."""

import io
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from florence2.errors import InvalidArgumentError

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | PIL.Image.Image | npt.NDArray[np.uint8]
"""What every method of a client takes as the image:

- a path (`str` or `os.PathLike`): the file's bytes travel as they are;
- `bytes`: an encoded image (JPEG, PNG, WebP, GIF, BMP or TIFF), travels as it is;
- a PIL image: encoded losslessly as PNG. Its pixels are taken as they stand: an EXIF orientation that has not
  been applied to them is not sent, so that coordinates always fit `image.size`;
- an (H, W, 3) `uint8` array, RGB: encoded losslessly as PNG.
"""

# What PNG holds without loss. Other modes take a choice (a colour profile, a range): the caller's.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")

# Lossless at every level. zlib's default, 6, takes twice the time (0.4 s for a full HD photograph) to make
# the file an eighth smaller, which only pays where the network is slow.
_PNG_COMPRESS_LEVEL = 1


def encode_image(image: ImageSource) -> bytes:
    """The encoded image to send.

    Raises:
        InvalidArgumentError: `image` is of another type, or a PIL image or an array that PNG cannot hold.
        OSError: the file cannot be read (`FileNotFoundError` and its like, as Python raises them).
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, np.ndarray):
        return _encode_png(_picture(image))
    if isinstance(image, PIL.Image.Image):
        return _encode_png(image)
    raise InvalidArgumentError.of_field("image", image, "a path, bytes, a PIL image or an (H, W, 3) uint8 array")


def _picture(array: npt.NDArray[np.uint8]) -> PIL.Image.Image:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InvalidArgumentError.of_field(
            "image",
            f"{array.dtype} array of shape {array.shape}",
            "a uint8 array of shape (H, W, 3), not empty",
        )
    return PIL.Image.fromarray(array)


def _encode_png(picture: PIL.Image.Image) -> bytes:
    if picture.mode not in _PNG_MODES or 0 in picture.size:
        raise InvalidArgumentError.of_field(
            "image",
            f"PIL image of mode {picture.mode}, {picture.width} x {picture.height} pixels",
            f"at least 1 x 1 pixels in one of the modes {', '.join(_PNG_MODES)}; convert it",
        )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
    return buffer.getvalue()
