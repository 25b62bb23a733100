"""Limits before cost: the pixels of images."""

import io
import warnings
from typing import Final

import PIL.Image

from florence2.base64_text import image_file
from florence2.errors import InvalidArgumentError

_URL_STARTS: Final = (b"http://", b"https://")


def read_image(data: bytes, max_pixels: int) -> bytes:
    """The image file in `data`: the file itself, its base64 text, or a base64 `data:` URI.

    Only the file's header is read: the pixels are decoded by the server.

    Raises:
        InvalidArgumentError: it is a URL, not an image file, or has more than `max_pixels` pixels.
    """
    if data[:8].lower().startswith(_URL_STARTS):
        shown = data[:80].decode(errors="replace")
        raise InvalidArgumentError.of_field("image", shown, "the image itself: URLs are not fetched")
    file = image_file(data)
    width, height = _size(file)
    if width * height > max_pixels:
        raise InvalidArgumentError.of_field("image", f"{width} x {height} pixels", f"at most {max_pixels:,} pixels")
    return file


def _size(file: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(file)) as opened:
                return opened.size
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidArgumentError.of_field("image", f"{len(file)} bytes", "an image file") from error
