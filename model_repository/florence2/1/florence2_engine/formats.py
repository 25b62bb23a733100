"""The image formats that are read: those that Pillow's build decodes, and HEIC through pi-heif."""

import logging

import PIL.features

_logger = logging.getLogger(__name__)

_ALWAYS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # MPO, which phones' cameras write, opens as JPEG


def readable_formats(heic: bool) -> tuple[str, ...]:
    """Pillow's names of the formats that can be read in this process.

    Args:
        heic: whether HEIC is wanted, which takes the pi-heif package; its plug-in is registered with Pillow.
    """
    formats = list(_ALWAYS)
    if PIL.features.check("avif"):
        formats.append("AVIF")  # before HEIF: of files with the brand "mif1", each decoder refuses the other's
    if heic and _register_heif():
        formats.append("HEIF")
    return tuple(formats)


def _register_heif() -> bool:
    try:
        import pi_heif
    except ImportError:
        _logger.info("pi-heif is not installed: HEIC images are refused")
        return False
    # What else a file has beside its images is never asked for.
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True
