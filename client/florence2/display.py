"""What an image shows: the RGB pixels that a viewer, the model and `florence2.draw` see."""

import numpy as np
import numpy.typing as npt
import PIL.Image

from florence2.errors import InvalidArgumentError

_WHITE = (255, 255, 255, 255)
_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION = 258, 262  # tags of TIFF 6.0
_WHITE_IS_ZERO = 0


def displayed(image: PIL.Image.Image, field: str = "image") -> PIL.Image.Image:
    """The image in RGB as a viewer shows it, its pixels taken as they stand (an EXIF orientation is the caller's).

    Transparency, in whatever form the mode has it, is composited on white as transformers does it
    (`transformers.image_transforms.convert_to_rgb`), pixel for pixel. 16-bit gray becomes 8 bits.

    Args:
        image: of any mode but those of 32 bits. It is not changed.
        field: what the error calls the image.

    Returns:
        `image` itself if it is opaque RGB, else a new image.

    Raises:
        InvalidArgumentError: mode I or F: nothing says which of their values is white.
        OSError: the image was opened from a damaged file and not loaded yet.
    """
    if image.mode == "F" or (image.mode == "I" and not _is_png(image)):
        raise InvalidArgumentError.of_field(
            field, f"pixels of mode {image.mode}", "8 or 16 bits a channel: 32 bits do not say which value is white"
        )
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_png(image: PIL.Image.Image) -> bool:
    """Whether mode I holds 16 bits: some versions of Pillow open 16-bit PNG files so."""
    return image.format == "PNG"


def _eight_bits(image: PIL.Image.Image) -> PIL.Image.Image:
    """Gray of 16 bits as L. A gray that the file declares transparent becomes white, which is what it is shown on."""
    shades = _shades(getattr(image, "tag_v2", {}))
    if (transparent := image.info.get("transparency")) is not None:
        shades[transparent] = 255
    return PIL.Image.fromarray(shades[np.asarray(image)])


def _shades(tags: dict[int, tuple[int, ...] | int]) -> npt.NDArray[np.uint8]:
    """The 8-bit value of each 16-bit value: the nearest one, v / 257, of which none lies half-way between two.

    Args:
        tags: of a TIFF file, whose values may be of 12 bits only and may count from white to black.
    """
    white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    shades = ((np.arange(white + 1) * 255 + white // 2) // white).astype(np.uint8)
    return shades[::-1] if tags.get(_PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else shades


def _on_white(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "La":
        image = image.convert("LA")  # Pillow converts it to nothing else
    image = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
