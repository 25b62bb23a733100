"""How image files are turned, compared with Pillow's own `exif_transpose`."""

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from florence2.display import displayed_file
from florence2.images import shown_image
from florence2_server.config import EngineConfig
from florence2_server.engine.images.image_file import ImageReader

ORIENTATION = 0x0112
BYTE, ASCII, SHORT, LONG, RATIONAL = 1, 2, 3, 4, 5
FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]
MODES = {"JPEG": ["RGB", "L"], "PNG": ["RGB", "RGBA", "LA", "P", "I;16"], "TIFF": ["RGB", "I;16"]}
SCENE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8))


def picture(mode: str) -> PIL.Image.Image:
    if mode == "I;16":
        return PIL.Image.fromarray(np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 60)
    return SCENE.convert(mode)


def saved(image: PIL.Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of (tag, type, count, value of four bytes or fewer)."""
    directory = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + bytes(64)


def shown(file: bytes) -> list[np.ndarray]:
    """What the client and the server show."""
    read = ImageReader.of(EngineConfig(checkpoint="unused"))
    return [np.asarray(shown_image(file)), np.asarray(read.load(file, file))]


def expected(file: bytes) -> np.ndarray:
    turned = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(file)))
    if turned.mode == "I;16":
        return np.repeat(np.rint(np.asarray(turned) / 257)[..., None], 3, axis=2)
    if not turned.has_transparency_data:
        return np.asarray(turned.convert("RGB"))
    turned = turned.convert("RGBA")
    white = PIL.Image.new("RGBA", turned.size, "white")
    return np.asarray(PIL.Image.alpha_composite(white, turned).convert("RGB"))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(("form", "mode"), [(form, mode) for form in FORMATS for mode in MODES.get(form, ["RGB"])])
def test_a_file_is_turned_as_pillow_turns_it(form, mode, orientation):
    tags = PIL.Image.Exif()
    tags[ORIENTATION] = orientation
    file = saved(picture(mode), form, exif=tags)
    for pixels in shown(file):
        np.testing.assert_array_equal(pixels, expected(file))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_is_turned_as_its_xmp_says_if_it_has_no_exif(form, orientation):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation
    options = {"xmp": xmp}
    if form == "PNG":
        options = {"pnginfo": (information := PIL.PngImagePlugin.PngInfo())}
        information.add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif form == "TIFF":
        options = {"tiffinfo": {700: xmp}}
    file = saved(picture("RGB"), form, **options)
    assert (expected(file).shape[0] == 40) == (5 <= orientation <= 8)
    for pixels in shown(file):
        np.testing.assert_array_equal(pixels, expected(file))


UNWRITABLE = {
    "ResolutionUnit, LONG": (296, LONG, 1, struct.pack("<I", 70_000)),
    "XResolution, BYTE": (282, BYTE, 1, b"H"),
    "YResolution, ASCII": (283, ASCII, 3, b"72\0"),
    "YCbCrPositioning, ASCII": (531, ASCII, 2, b"1\0"),
    "SubIFDs, BYTE": (330, BYTE, 1, b"\1"),
    "SubIFDs, ASCII": (330, ASCII, 2, b"1\0"),
    "ImageDescription, RATIONAL": (270, RATIONAL, 1, struct.pack("<I", 40)),
}


@pytest.mark.parametrize("tag", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_tag_that_pillow_cannot_write_does_not_matter(tag):
    orientation = (ORIENTATION, SHORT, 1, struct.pack("<HH", 6, 0))
    file = saved(picture("RGB"), "JPEG", exif=exif(*sorted([orientation, tag])))
    with pytest.raises((struct.error, TypeError, ValueError, AttributeError)):
        expected(file)
    plain = saved(picture("RGB"), "JPEG", exif=exif(orientation))
    for pixels in shown(file):
        np.testing.assert_array_equal(pixels, expected(plain))


def test_exif_that_cannot_be_read_turns_nothing():
    file = saved(picture("RGB"), "JPEG", exif=b"Exif\0\0no TIFF header")
    for pixels in shown(file):
        np.testing.assert_array_equal(pixels, np.asarray(PIL.Image.open(io.BytesIO(file))))


def test_the_memory_of_a_file_is_freed_unless_it_is_returned():
    opaque = PIL.Image.open(io.BytesIO(saved(picture("RGB"), "PNG")))
    assert displayed_file(opaque) is opaque
    transparent = PIL.Image.open(io.BytesIO(saved(picture("RGBA"), "PNG")))
    displayed_file(transparent)
    with pytest.raises(ValueError, match="closed image"):
        transparent.getpixel((0, 0))
