"""Displayed pixels, compared with the conversion in transformers, with which the model was trained."""

import io

import numpy as np
import PIL.Image
import pytest
from florence2.display import displayed
from florence2.errors import InvalidArgumentError
from transformers.image_transforms import convert_to_rgb

SIZE = (23, 19)


def noise(channels: int = 4) -> np.ndarray:
    """Every alpha from 0 to 255 with various colors."""
    return np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], channels), dtype=np.uint8)


RGBA = PIL.Image.fromarray(noise())


def of_mode(mode: str) -> PIL.Image.Image:
    if mode == "LAB":
        return PIL.Image.merge("LAB", RGBA.convert("RGB").split())
    if mode == "PA":
        return RGBA.convert("P", palette=PIL.Image.Palette.ADAPTIVE).convert("PA")
    return RGBA.convert(mode)


def expected(picture: PIL.Image.Image) -> np.ndarray:
    return convert_to_rgb(picture, return_numpy=True)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_mode_is_converted_as_by_transformers(mode):
    shown = displayed(of_mode(mode))
    assert shown.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(shown), expected(of_mode(mode)))


@pytest.mark.parametrize(
    ("mode", "key"),
    [("1", 0), ("1", 255), ("L", 7), ("RGB", (1, 2, 3)), ("P", 3), ("P", bytes(range(256)))],
    ids=str,
)
def test_a_transparent_color_is_converted_as_by_transformers(mode, key):
    picture = of_mode(mode) if mode != "P" else RGBA.convert("RGB").quantize(200)
    picture.putpixel((2, 3), key if not isinstance(key, bytes) else 3)
    picture.info["transparency"] = key
    np.testing.assert_array_equal(np.asarray(displayed(picture)), expected(picture))
    if not isinstance(key, bytes):
        assert displayed(picture).getpixel((2, 3)) == (255, 255, 255)


@pytest.mark.parametrize(("premultiplied", "straight"), [("RGBa", "RGBA"), ("La", "LA")])
def test_premultiplied_colors_are_shown_as_the_colors_that_they_represent(premultiplied, straight):
    """RGBa loses its alpha in transformers, which cannot convert La at all."""
    picture = RGBA.convert(straight).convert(premultiplied)
    np.testing.assert_array_equal(np.asarray(displayed(picture)), expected(picture.convert(straight)))


def test_the_alpha_of_a_palette_is_applied():
    picture = PIL.Image.new("P", (2, 1), 1)
    picture.putpalette([0, 0, 0, 0, 10, 20, 30, 51], "RGBA")
    assert displayed(picture).getpixel((0, 0)) == (206, 208, 210)


def test_lab_has_no_alpha():
    """Its second channel is called A."""
    lab = of_mode("LAB")
    np.testing.assert_array_equal(np.asarray(displayed(lab)), np.asarray(lab.convert("RGB")))
    assert np.ptp(np.asarray(displayed(lab))) > 200


def test_opaque_rgb_is_returned_itself_and_no_image_is_modified():
    picture = of_mode("RGB")
    assert displayed(picture) is picture
    transparent = RGBA.copy()
    displayed(transparent)
    assert transparent == RGBA


GRAYS = np.array([[0, 1, 128, 129, 256], [257, 385, 386, 10_000, 32_767], [32_768, 40_000, 65_278, 65_407, 65_535]])


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bit_gray_becomes_the_nearest_8_bit_value(mode):
    order = ">u2" if mode == "I;16B" else "<u2"
    picture = PIL.Image.frombytes(mode, (5, 3), GRAYS.astype(order).tobytes())
    shown = np.asarray(displayed(picture))
    np.testing.assert_array_equal(shown, np.repeat(np.rint(GRAYS / 257)[..., None], 3, axis=2))


def test_every_16_bit_gray_becomes_the_nearest_8_bit_value_and_8_bits_survive():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    shown = np.asarray(displayed(PIL.Image.fromarray(every)))[..., 0]
    np.testing.assert_array_equal(shown, np.rint(every / 257))
    widened = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    np.testing.assert_array_equal(np.asarray(displayed(PIL.Image.fromarray(widened)))[..., 0], widened // 257)


def reopened(picture: PIL.Image.Image, form: str, **options) -> PIL.Image.Image:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return PIL.Image.open(file)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_gray_of_files(form):
    opened = reopened(PIL.Image.fromarray(GRAYS.astype(np.uint16)), form)
    np.testing.assert_array_equal(np.asarray(displayed(opened))[..., 0], np.rint(GRAYS / 257))


def test_16_bit_gray_in_which_zero_is_white():
    opened = reopened(PIL.Image.fromarray(GRAYS.astype(np.uint16)), "TIFF", tiffinfo={262: 0})
    np.testing.assert_array_equal(np.asarray(displayed(opened))[..., 0], np.rint((65535 - GRAYS) / 257))


def test_white_is_4095_in_12_bit_gray():
    """As written by microscopes and scanners: two pixels in three bytes."""
    pixels = bytes([0xFF, 0xF0, 0x00, 0x80, 0x0F, 0xFF])  # 4095, 0, 2048, 4095
    entries = [(256, 4, 4), (257, 4, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1)]
    entries += [(278, 4, 1), (279, 4, len(pixels))]
    directory = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in entries
    )
    tiff = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + directory + bytes(4) + pixels
    shown = displayed(PIL.Image.open(io.BytesIO(tiff)))
    assert [shown.getpixel((x, 0))[0] for x in range(4)] == [255, 0, 128, 255]


def test_a_transparent_16_bit_gray_is_white():
    gray = PIL.Image.fromarray(GRAYS.astype(np.uint16))
    shown = np.asarray(displayed(reopened(gray, "PNG", transparency=256)))[..., 0]
    wanted = np.rint(GRAYS / 257)
    wanted[GRAYS == 256] = 255  # but not 257, which has the same 8-bit value
    np.testing.assert_array_equal(shown, wanted)


def test_16_bit_png_files_opened_in_mode_i_have_16_bits():
    """Some versions of Pillow open them in this mode."""
    picture = PIL.Image.fromarray(GRAYS.astype(np.int32))
    assert picture.mode == "I"
    picture.format = "PNG"
    np.testing.assert_array_equal(np.asarray(displayed(picture))[..., 0], np.rint(GRAYS / 257))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_modes_with_32_bits_are_rejected_by_name(mode):
    with pytest.raises(InvalidArgumentError, match=rf"^IMAGE: got 'pixels of mode {mode}', expected 8 or 16 bits"):
        displayed(PIL.Image.new(mode, (2, 2), 77), "IMAGE")


@pytest.mark.parametrize(
    ("mode", "key"),
    [("I;16", 70_000), ("I;16", b"ab"), ("I;16", (1, 2)), ("RGB", b"abc"), ("RGB", "red"), ("P", 300), ("P", 1 << 40)],
    ids=str,
)
def test_an_error_names_a_transparent_color_that_its_mode_cannot_have(mode, key):
    picture = PIL.Image.new(mode, (2, 2))
    picture.info["transparency"] = key
    with pytest.raises(InvalidArgumentError) as error:
        displayed(picture)
    assert error.value.field == "image"
    assert f"transparency {key!r} of mode {mode}" in error.value.value


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_a_transparent_color_of_none_is_opaque(mode):
    picture = PIL.Image.new(mode, (2, 2), 0 if mode != "RGBA" else (0, 0, 0, 255))
    picture.info["transparency"] = None
    assert displayed(picture).getpixel((0, 0)) == (0, 0, 0)
    assert picture.info == {"transparency": None}
