"""Conversion of an image to the RGB pixels that viewers display, and that the model and `florence2.draw` use."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import PIL.Image

from florence2.errors import InvalidArgumentError

_ORIENTATION = 0x0112  # the EXIF tag, and TIFF's
_TURNS = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_PART_PIXELS = 250_000
_WHITE = (255, 255, 255, 255)
_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION = 258, 262  # tags of TIFF 6.0
_WHITE_IS_ZERO = 0


def displayed_file(image: PIL.Image.Image, field: str = "image") -> PIL.Image.Image:
    """The image of a file in RGB as a viewer shows it, with its orientation in EXIF or XMP applied.

    The pixels are those of `PIL.ImageOps.exif_transpose`, which raises an error if the EXIF data contains a tag that
    Pillow reads but cannot write: it writes them all back without the orientation.

    Args:
        image: an image returned by `PIL.Image.open`. Its memory is freed unless it is itself returned.
        field: the name of the image in errors.

    Returns:
        `image` itself if it is opaque RGB and needs no rotation or flip, else a new image.

    Raises:
        InvalidArgumentError: as for `displayed`.
        OSError: the file is damaged. Some of Pillow's decoders raise other exceptions for that.
    """
    image.load()  # first: a PNG file may have its EXIF data behind its pixels
    turn = _turn(image)
    shown = displayed(image, field)
    if shown is not image:
        image.close()
    return shown if turn is None else shown.transpose(turn)


def _turn(image: PIL.Image.Image) -> PIL.Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - an image with unreadable EXIF data is shown without a turn
        return None


def displayed(image: PIL.Image.Image, field: str = "image") -> PIL.Image.Image:
    """The image in RGB as a viewer shows it. EXIF orientation is not applied; `displayed_file` does that.

    Transparency, in whatever form the mode stores it, is composited on white, exactly as transformers does it
    (`transformers.image_transforms.convert_to_rgb`) in all modes but three: transformers ignores the alpha of RGBa and
    of a palette in RGBA, and cannot convert La. 16-bit grayscale is scaled to 8 bits.

    Args:
        image: in any mode except those with 32 bits per channel. It is not modified.
        field: the name of the image in errors.

    Returns:
        `image` itself if it is opaque RGB, else a new image.

    Raises:
        InvalidArgumentError: the mode is I or F, which do not define the value of white; or `info["transparency"]` is
            not a color of the mode (None means opaque).
        OSError: the image was opened from a damaged file and is not loaded yet.
    """
    if image.mode == "F" or (image.mode == "I" and not _is_png(image)):
        raise InvalidArgumentError.of_field(
            field, f"pixels of mode {image.mode}", "8 or 16 bits per channel: 32 bits do not say which value is white"
        )
    image.load()
    if "transparency" in image.info and image.info["transparency"] is None:
        image = image.copy()
        del image.info["transparency"]  # Pillow raises an error for None
    try:
        return _rgb(image)
    except (IndexError, OverflowError, TypeError, ValueError):
        if "transparency" not in image.info:
            raise
        got = f"transparency {image.info['transparency']!r} of mode {image.mode}"
        raise InvalidArgumentError.of_field(field, got, "a color of that mode, or for P also bytes of alpha") from None


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_png(image: PIL.Image.Image) -> bool:
    """Whether the image is a PNG file. Some versions of Pillow open 16-bit PNG files in mode I."""
    return image.format == "PNG"


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """16-bit grayscale as mode L. The value that the file declares transparent becomes white, like the background."""
    shades = _shades(getattr(image, "tag_v2", {}))
    if (transparent := image.info.get("transparency")) is not None:
        shades[transparent] = 255
    return PIL.Image.fromarray(shades[np.asarray(image)])


def _shades(tags: dict[int, tuple[int, ...] | int]) -> npt.NDArray[np.uint8]:
    """The 8-bit value for each 16-bit value v: the nearest to v / 257, which is never halfway between two values.

    Args:
        tags: those of a TIFF file, whose values may have only 12 bits, and in which 0 may be white.
    """
    white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    shades = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    return shades[::-1] if tags.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else shades


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    """The image composited on white, in parts: complete copies would take 12 more bytes per pixel than these 4."""
    shown = PIL.Image.new("RGB", image.size)
    for box in _parts(*image.size):
        part = image.crop(box)
        if part.mode == "La":
            part = part.convert("LA")  # the only mode that Pillow converts La to
        if part.mode != "RGBA":
            part = part.convert("RGBA")
        white = PIL.Image.new("RGBA", part.size, _WHITE)
        shown.paste(PIL.Image.alpha_composite(white, part).convert("RGB"), box)
    return shown


def _parts(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes that cover an image, each of at most `_PART_PIXELS`: whole lines, unless a single line has more pixels."""
    columns = min(width, _PART_PIXELS)
    rows = _PART_PIXELS // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield left, top, min(left + columns, width), min(top + rows, height)
