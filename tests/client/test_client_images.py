"""What a caller may hand over as the image, and which bytes then travel."""

import io
import os
import time

import numpy as np
import PIL.Image
import pytest
from florence2.errors import DeadlineExceededError, InvalidArgumentError

pytest_plugins = ["tests.client.fake_server"]

ORIENTATION_TAG = 0x0112


def drawn(mode: str = "RGB", size: tuple[int, int] = (31, 17)) -> PIL.Image.Image:
    """Noise, which nothing but lossless encoding keeps."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


@pytest.fixture
def sent(server, ask):
    """The bytes that travel for an image."""

    def sent(image) -> bytes:
        ask(lambda client: client.detect(image))
        return server.last.element("IMAGE")

    return sent


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("as_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_files_bytes_travel_as_they_are(sent, tmp_path, form, as_path):
    path = tmp_path / "image"
    drawn().save(path, form)
    assert sent(as_path(path)) == path.read_bytes()


def test_bytes_travel_as_they_are(sent):
    encoded = bytes(range(256)) + b"\0\0"
    assert sent(encoded) == encoded


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_a_pil_image_travels_as_png_without_loss(sent, mode):
    picture = drawn(mode)
    arrived = PIL.Image.open(io.BytesIO(sent(picture)))
    assert arrived.format == "PNG"
    assert arrived.mode == mode
    np.testing.assert_array_equal(np.asarray(arrived.convert("RGBA")), np.asarray(picture.convert("RGBA")))


def test_transparency_of_a_palette_image_is_kept(sent):
    picture = drawn("P")
    picture.info["transparency"] = 3
    arrived = PIL.Image.open(io.BytesIO(sent(picture)))
    np.testing.assert_array_equal(np.asarray(arrived.convert("RGBA")), np.asarray(picture.convert("RGBA")))


def test_a_pil_images_pixels_are_taken_as_they_stand(sent, tmp_path):
    exif = PIL.Image.Exif()
    exif[ORIENTATION_TAG] = 6
    drawn().save(tmp_path / "turned.jpg", exif=exif)
    picture = PIL.Image.open(tmp_path / "turned.jpg")
    arrived = PIL.Image.open(io.BytesIO(sent(picture)))
    assert arrived.size == picture.size
    assert ORIENTATION_TAG not in arrived.getexif()


@pytest.mark.parametrize(
    "view",
    [lambda array: array, lambda array: array[::2, ::-1], np.asfortranarray],
    ids=["whole", "strided", "F"],
)
def test_an_array_travels_as_png_without_loss(sent, view):
    array = view(np.asarray(drawn()))
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(sent(array)))), array)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 array of shape \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint8), r"uint8 array of shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 array of shape \(4, 5, 4\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"uint8 array of shape \(1, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 array of shape \(0, 5, 3\)"),
        (drawn("CMYK"), "PIL image of mode CMYK, 31 x 17 pixels"),
        (drawn("F"), "PIL image of mode F"),
        (PIL.Image.new("RGB", (0, 3)), "PIL image of mode RGB, 0 x 3 pixels"),
        (None, "None"),
        ([[1, 2]], "1, 2"),
        (bytearray(b"x"), "bytearray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_is_refused_with_what_it_is_and_what_is_expected(server, sent, image, got):
    with pytest.raises(InvalidArgumentError, match=rf"^image: got .*{got}.*, expected .*"):
        sent(image)
    assert not server.received


def test_a_missing_file_is_the_error_that_python_has_for_it(server, sent, tmp_path):
    with pytest.raises(FileNotFoundError):
        sent(tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        sent(str(tmp_path))
    assert not server.received


def test_encoding_counts_against_the_timeout(server, ask):
    class SlowPath(os.PathLike):
        def __fspath__(self) -> str:
            time.sleep(0.1)
            return __file__

    with pytest.raises(DeadlineExceededError, match="before the request was sent"):
        ask(lambda client: client.detect(SlowPath(), timeout=0.05))
    assert not server.received
