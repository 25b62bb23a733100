"""The image formats that can be read: those of this build of Pillow, and HEIC by way of pi-heif."""

import logging

import PIL.features

_logger = logging.getLogger(__name__)

_ALWAYS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # this includes MPO, which phone cameras write


def readable_formats(heic: bool) -> tuple[str, ...]:
    """Pillow's names for the formats that can be read in this process.

    Args:
        heic: whether to read HEIC. This needs the pi-heif package, whose plug-in is then registered with Pillow.
    """
    formats = list(_ALWAYS)
    if PIL.features.check("avif"):
        formats.append("AVIF")  # before HEIF: both claim files of brand "mif1", and each refuses the other's
    if heic and _register_heif():
        formats.append("HEIF")
    return tuple(formats)


def _register_heif() -> bool:
    try:
        import pi_heif
    except ImportError:
        _logger.info("pi-heif is not installed: HEIC images are rejected")
        return False
    # Only the images themselves are needed, not what else a file contains.
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True
