"""Images that callers pass: encoding them for a request, and opening them as displayed."""

import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from florence2.base64_text import image_file
from florence2.display import displayed, displayed_file
from florence2.errors import InvalidArgumentError

ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | PIL.Image.Image | npt.NDArray[np.uint8]
)
"""What every client method, and `florence2.draw`, accepts as the image:

- a path (`str` or `os.PathLike`): the file's bytes are sent unchanged. A `str` that begins with `data:` is a base64
  data URI; one that begins with `http://` or `https://` is rejected, since URLs are not fetched;
- `bytes`, `bytearray` or `memoryview`: an image file, in any format that the server reads, or its base64 text. It is
  sent unchanged;
- a binary file object (`io.BytesIO`, `open(path, "rb")`, ...): read from its current position to its end (so a second
  call needs `seek(0)` first), then treated like `bytes`;
- a PIL image in any mode except I and F (32 bits). Its pixels are taken as they are: an EXIF orientation that has not
  been applied to them is ignored, so that coordinates always fit `image.size`;
- a non-empty `uint8` array of shape (H, W) for grayscale, (H, W, 3) for RGB or (H, W, 4) for RGBA.

PIL images and arrays are sent losslessly as they are displayed (transparency composited on white): as uncompressed
TIFF, or as PNG if they are smaller than a megapixel and compress well, as drawings and screenshots do, or would
otherwise exceed the default limit of a server.
"""

_ACCEPTED = (
    "a path, a data: URI, bytes, bytearray, memoryview, a binary file object, a PIL image, "
    "or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)"
)
_URL = re.compile(r"\s*https?://", re.IGNORECASE)
_DATA_URI = re.compile(r"\s*data:", re.IGNORECASE)
_BYTES_TYPES = (bytes, bytearray, memoryview)

# Measured on photographs: PNG takes a hundred times as long to write as uncompressed TIFF, and twelve times as long to
# read, and saves a quarter of the bytes, which never pays off. Drawings are different: PNG compresses them to a
# hundredth.
_LARGE_PIXELS = 1_000_000
_UNCOMPRESSED_BYTES = 40 * 1024 * 1024  # a server's default limit, FLORENCE2_MAX_IMAGE_BYTES
_PROBED_ROWS = 16
_SHORT, _LONG = 3, 4  # TIFF field types
_BITS_AT = 8 + 2 + 9 * 12 + 4  # after the header, and a directory of nine entries
_HEADER_BYTES = _BITS_AT + 3 * 2
_PNG_COMPRESS_LEVEL = 1  # higher levels take at least twice as long and save an eighth


def encode_image(image: ImageSource) -> bytes:
    """Encode an image for a request.

    Raises:
        TypeError: `image` has an unsupported type, or is a file opened in text mode.
        InvalidArgumentError: `image` is a URL, a file object at its end, a PIL image of mode I or F or without pixels,
            or an array of another dtype or shape.
        OSError: the file cannot be read (e.g. `FileNotFoundError`).
    """
    if isinstance(image, np.ndarray):
        return _encoded(_shown_pixels(image))
    if isinstance(image, PIL.Image.Image):
        return _encoded(np.asarray(_shown(image)))
    return _file(image)


def shown_image(image: ImageSource) -> PIL.Image.Image:
    """Open an image as displayed, in RGB. A file's EXIF orientation is applied, that of a PIL image is not.

    Returns:
        A new image.

    Raises:
        TypeError, InvalidArgumentError: as for `encode_image`.
        OSError: the file cannot be read, or is not an image that this Pillow can read.
    """
    if isinstance(image, np.ndarray):
        return PIL.Image.fromarray(_shown_pixels(image)).convert("RGB")
    if isinstance(image, PIL.Image.Image):
        return _shown(image).convert("RGB")  # also copies
    with PIL.Image.open(io.BytesIO(image_file(_file(image)))) as opened:
        return displayed_file(opened).convert("RGB")  # also copies


def _file(image: object) -> bytes:
    """Read an image file, or its base64 text, from any source but PIL images and arrays."""
    if isinstance(image, _BYTES_TYPES):
        return bytes(image)
    if isinstance(image, str) and _DATA_URI.match(image):
        return image.encode()
    if isinstance(image, str) and _URL.match(image):
        raise InvalidArgumentError.of_field("image", image, "a path or the image itself: URLs are not fetched")
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, io.TextIOBase):
        raise TypeError(f"image: got a file opened in text mode, expected {_ACCEPTED}")
    if (read := getattr(image, "read", None)) is None:
        raise TypeError(f"image: got {type(image).__name__}, expected {_ACCEPTED}")
    if not isinstance(data := read(), _BYTES_TYPES):
        raise TypeError(f"image: got a file object that returns {type(data).__name__}, expected {_ACCEPTED}")
    if not data:
        raise InvalidArgumentError.of_field("image", image, "a file object that is not at its end; call seek(0) first")
    return bytes(data)


def _shown(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The image as displayed, in RGB, or unchanged if it is grayscale."""
    if 0 in picture.size:
        got = f"PIL image of {picture.width} x {picture.height} pixels"
        raise InvalidArgumentError.of_field("image", got, "at least 1 x 1 pixels")
    return picture if picture.mode == "L" and not picture.has_transparency_data else displayed(picture)


def _shown_pixels(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The image as displayed, in RGB, or unchanged if it is grayscale."""
    is_image = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not is_image or array.size == 0:
        got = f"{array.dtype} array of shape {array.shape}"
        raise InvalidArgumentError.of_field(
            "image", got, "a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4), not empty"
        )
    is_transparent = array.ndim == 3 and array.shape[2] == 4
    return np.asarray(displayed(PIL.Image.fromarray(array))) if is_transparent else array


def _encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode pixels of shape (H, W) or (H, W, 3) as an image file."""
    height, width = pixels.shape[:2]
    is_over_the_limit = pixels.size + _HEADER_BYTES > _UNCOMPRESSED_BYTES
    if is_over_the_limit or (height * width < _LARGE_PIXELS and _repeats(pixels)):
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels).save(buffer, "PNG", compress_level=_PNG_COMPRESS_LEVEL)
        return buffer.getvalue()
    return b"".join((_tiff_header(pixels), np.ascontiguousarray(pixels).data))


def _repeats(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether a sample of the pixel rows compresses to less than half its size."""
    sample = pixels[:: max(1, len(pixels) // _PROBED_ROWS)].tobytes()
    return len(zlib.compress(sample, _PNG_COMPRESS_LEVEL)) < len(sample) // 2


def _tiff_header(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The bytes before the pixels in a TIFF file with one strip (TIFF 6.0, sections 2, 4 and 6).

    Pillow's own writer copies the pixels: 54 ms instead of 15 for 12 megapixels.
    """
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else 3
    entries = [
        (256, _LONG, 1, width),
        (257, _LONG, 1, height),
        (258, _SHORT, channels, 8 if channels == 1 else _BITS_AT),  # bits per sample; for three channels, their offset
        (259, _SHORT, 1, 1),  # uncompressed
        (262, _SHORT, 1, 1 if channels == 1 else 2),  # black is zero, or RGB
        (273, _LONG, 1, _HEADER_BYTES),  # where the pixels begin
        (277, _SHORT, 1, channels),
        (278, _LONG, 1, height),  # pixel rows of the strip
        (279, _LONG, 1, pixels.size),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + struct.pack("<I3H", 0, 8, 8, 8)
