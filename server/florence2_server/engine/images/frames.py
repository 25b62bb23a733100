"""Limits the number of frames of an image file, without decoding any or reading further than necessary."""

import contextlib
import io

import PIL.Image

# GIF89a, https://www.w3.org/Graphics/GIF/spec-gif89a.txt
_GIF_HEADER_BYTES = 13  # signature and logical screen descriptor, whose flags are byte 10
_GIF_FLAGS = 10
_GIF_FRAME = 0x2C
_GIF_FRAME_BYTES = 10  # image descriptor, whose last byte is its flags
_GIF_EXTENSION = 0x21
_GIF_EXTENSION_BYTES = 2


def has_more_frames(image: PIL.Image.Image, data: bytes, limit: int) -> bool:
    """Whether an image file has more than `limit` frames.

    Args:
        image: the file as Pillow opened it, with only the header read.
        data: the file.
        limit: at least 1.
    """
    if image.format == "GIF":
        return _gif_has_more_frames(data, limit)
    if image.format == "TIFF":
        with contextlib.suppress(EOFError):
            PIL.Image.open(io.BytesIO(data), formats=["TIFF"]).seek(limit)
            return True
        return False
    return getattr(image, "n_frames", 1) > limit  # the header says so


def _gif_has_more_frames(data: bytes, limit: int) -> bool:
    """Stops at the first frame over the limit; Pillow would count all of them, of which a hostile file has millions."""
    frames = 0
    position = _GIF_HEADER_BYTES + _gif_color_table_bytes(data[_GIF_FLAGS])
    while position + _GIF_FRAME_BYTES < len(data):
        if data[position] == _GIF_FRAME:
            frames += 1
            if frames > limit:
                return True
            flags = data[position + _GIF_FRAME_BYTES - 1]
            position += _GIF_FRAME_BYTES + _gif_color_table_bytes(flags) + 1  # a byte for the minimum code size
        elif data[position] == _GIF_EXTENSION:
            position += _GIF_EXTENSION_BYTES
        else:
            return False
        while position < len(data) and data[position]:  # blocks, each after its length, until an empty one
            position += 1 + data[position]
        position += 1
    return False


def _gif_color_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
