"""The images that callers may pass, and the bytes that are sent for them."""

import io
import os
import re
import time

import numpy as np
import PIL.Image
import pytest
from florence2.display import displayed
from florence2.errors import DeadlineExceededError, InvalidArgumentError
from florence2.images import encode_image

pytest_plugins = ["tests.client.fake_server"]

ORIENTATION_TAG = 0x0112
ACCEPTED = (
    "a path, a data: URI, bytes, bytearray, memoryview, a binary file object, a PIL image, "
    "or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)"
)
ENCODED = bytes(range(256)) + b"\0\0"


def drawn(mode: str = "RGB", size: tuple[int, int] = (31, 17)) -> PIL.Image.Image:
    """Noise, which only lossless encoding preserves."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def flat(size: tuple[int, int] = (640, 480)) -> np.ndarray:
    """A drawing: two colors."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[50:200, 100:300] = (200, 30, 40)
    return pixels


@pytest.fixture
def sent(server, use):
    """`sent(image)`: the bytes that are sent for an image."""

    def sent(image) -> bytes:
        use(lambda client: client.detect(image))
        return server.last.element("IMAGE")

    return sent


def opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_files_bytes_are_sent_unchanged(sent, tmp_path, form, as_path):
    path = tmp_path / "image"
    drawn("RGB").save(path, form)
    assert sent(as_path(path)) == path.read_bytes()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_are_sent_unchanged(sent, kind):
    assert sent(kind(ENCODED)) == ENCODED


def test_a_memoryview_of_any_format_is_sent_as_its_bytes(sent):
    assert sent(memoryview(np.arange(6, dtype=np.uint16).reshape(2, 3))) == np.arange(6, dtype=np.uint16).tobytes()
    assert sent(memoryview(ENCODED)[::2]) == ENCODED[::2]


def test_a_file_object_is_read_from_its_current_position(server, sent, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"head" + ENCODED)
    for buffering in (-1, 0):
        with path.open("rb", buffering=buffering) as file:
            file.seek(4)
            assert sent(file) == ENCODED
            with pytest.raises(InvalidArgumentError, match=r"^image: got .*, expected a file object .*seek\(0\)"):
                sent(file)
    assert len(server.received) == 2


def test_any_object_whose_read_method_returns_bytes_is_a_file(sent):
    class Reader:
        def read(self) -> bytearray:
            return bytearray(ENCODED)

    assert sent(Reader()) == ENCODED


def test_a_data_uri_is_sent_unchanged(sent):
    assert sent("data:image/png;base64,QUJD") == b"data:image/png;base64,QUJD"


@pytest.mark.parametrize("url", ["https://example.com/cat.png", "http://localhost/cat", "HTTPS://example.com"])
def test_urls_are_not_fetched(server, sent, url):
    with pytest.raises(
        InvalidArgumentError, match=f"^image: got '{url}', expected a path or the image itself: URLs are not fetched$"
    ):
        sent(url)
    assert not server.received


@pytest.mark.parametrize(
    "mode",
    ["RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "L", "LA", "La", "1", "CMYK", "YCbCr", "HSV", "I;16", "I;16B"],
)
@pytest.mark.parametrize("size", [(31, 17), (1200, 900)], ids=["small", "large"])
def test_a_pil_image_of_any_mode_is_sent_losslessly_as_displayed(sent, mode, size):
    if mode in ("PA", "La"):
        picture = drawn({"PA": "P", "La": "LA"}[mode], size).convert(mode)
    elif mode.startswith("I;16"):
        picture = PIL.Image.new(mode, size, 40_000)
    else:
        picture = drawn(mode, size)
    arrived = opened(sent(picture))
    assert arrived.mode == ("L" if mode == "L" else "RGB")
    np.testing.assert_array_equal(np.asarray(arrived.convert("RGB")), np.asarray(displayed(picture)))


def test_a_transparent_color_is_sent_as_white(sent):
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.info["transparency"] = 1
    assert [opened(sent(picture)).getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (255, 255, 255)]


def test_a_pil_images_exif_orientation_is_ignored(sent, tmp_path):
    exif = PIL.Image.Exif()
    exif[ORIENTATION_TAG] = 6
    drawn("RGB").save(tmp_path / "turned.jpg", exif=exif)
    picture = PIL.Image.open(tmp_path / "turned.jpg")
    arrived = opened(sent(picture))
    assert arrived.size == picture.size
    assert ORIENTATION_TAG not in arrived.getexif()


@pytest.mark.parametrize(
    "view",
    [lambda array: array, lambda array: array[::2, ::-1], np.asfortranarray],
    ids=["whole", "strided", "F"],
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(31, 17), (1, 1), (1200, 900)], ids=["small", "pixel", "large"])
def test_an_array_is_sent_losslessly(sent, view, channels, size):
    array = view(np.asarray(drawn("L" if channels == 1 else "RGB", size)))
    np.testing.assert_array_equal(np.asarray(opened(sent(array))), array)


def test_an_array_with_alpha_is_sent_as_displayed(sent):
    array = np.asarray(drawn("RGBA"))
    shown = np.asarray(displayed(PIL.Image.fromarray(array)))
    np.testing.assert_array_equal(np.asarray(opened(sent(array))), shown)
    assert (opened(sent(np.zeros((2, 3, 4), np.uint8))).getpixel((0, 0))) == (255, 255, 255)


def test_a_photograph_is_sent_uncompressed(sent):
    data = sent(np.asarray(drawn("RGB", (400, 300))))
    assert opened(data).format == "TIFF"
    assert len(data) < 1.01 * 400 * 300 * 3


def test_a_small_drawing_is_sent_as_png(sent):
    data = sent(flat())
    assert opened(data).format == "PNG"
    assert len(data) < 10_000
    np.testing.assert_array_equal(np.asarray(opened(data)), flat())


def test_a_large_drawing_is_sent_uncompressed_if_it_is_within_the_default_limit(sent):
    assert opened(sent(flat((1200, 900)))).format == "TIFF"
    data = encode_image(flat((4500, 3200)))  # 43 MB, more than a server accepts by default
    assert opened(data).format == "PNG"
    assert len(data) < 1_000_000


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 array of shape (4, 5, 3)"),
        (np.zeros((4, 5), bool), r"bool array of shape (4, 5)"),
        (np.zeros((4, 5, 2), np.uint8), r"uint8 array of shape (4, 5, 2)"),
        (np.zeros((5,), np.uint8), r"uint8 array of shape (5,)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"uint8 array of shape (1, 4, 5, 3)"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 array of shape (0, 5, 3)"),
        (PIL.Image.new("F", (2, 2)), "pixels of mode F"),
        (PIL.Image.new("I", (2, 2)), "pixels of mode I"),
        (PIL.Image.new("RGB", (0, 3)), "PIL image of 0 x 3 pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_invalid_image_is_rejected_with_what_it_is_and_what_is_expected(server, sent, image, got):
    with pytest.raises(InvalidArgumentError, match=rf"^image: got '{re.escape(got)}', expected .*"):
        sent(image)
    assert not server.received


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (None, "NoneType"),
        ([[1, 2]], "list"),
        (7, "int"),
        (io.StringIO("text"), "a file opened in text mode"),
        (type("Reader", (), {"read": lambda self: "text"})(), "a file object that returns str"),  # noqa: ARG005
    ],
    ids=["None", "list", "int", "text", "reader of text"],
)
def test_an_unsupported_type_is_a_type_error_that_lists_the_supported_ones(server, sent, image, got):
    with pytest.raises(TypeError, match=f"^image: got {got}, expected {re.escape(ACCEPTED)}$"):
        sent(image)
    assert not server.received


def test_a_file_in_text_mode_is_rejected(sent, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"text")
    with path.open() as file, pytest.raises(TypeError, match="text mode"):
        sent(file)


def test_a_file_that_cannot_be_read_raises_pythons_own_error(server, sent, tmp_path):
    with pytest.raises(FileNotFoundError):
        sent(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        sent(str(tmp_path))
    assert not server.received


def test_reading_the_image_counts_against_the_timeout(server, use):
    class SlowPath(os.PathLike):
        def __fspath__(self) -> str:
            time.sleep(0.1)
            return __file__

    with pytest.raises(DeadlineExceededError, match="before the request was sent"):
        use(lambda client: client.detect(SlowPath(), timeout=0.05))
    assert not server.received
