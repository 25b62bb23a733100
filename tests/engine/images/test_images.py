import base64
import contextlib
import io
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import torch
from florence2.errors import InvalidArgumentError
from florence2_server.engine.images.decoding import ImageDecoder
from florence2_server.engine.images.formats import readable_formats
from florence2_server.engine.images.frames import has_more_frames
from florence2_server.engine.images.image_file import ImageReader
from florence2_server.engine.images.resizing import resizing_of
from florence2_server.engine.model.normalization import Normalization
from transformers import Florence2Processor

from tests.conftest import HEIC_FILES

MAX_BYTES = 100_000
MAX_PIXELS = 160 * 120
MAX_FRAMES = 5
READER = ImageReader(readable_formats(heic=True), MAX_BYTES, MAX_PIXELS, MAX_FRAMES)
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]
ANIMATED = ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"]


class CountingResizing:
    """Stands in for the checkpoint's resizing: returns the pixels as they are, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_proceed = threading.Event()
        self.may_proceed.set()

    def __call__(self, picture):
        assert picture.mode == "RGB"
        assert self.may_proceed.wait(10)
        self.calls += 1
        return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


@pytest.fixture
def resizing():
    return CountingResizing()


@pytest.fixture
def decoder(resizing):
    return ImageDecoder(resizing, READER)


def heic(name: str) -> bytes:
    return (HEIC_FILES / f"{name}.heic").read_bytes()


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_decoded(decoder, image_file, format_):
    image = decoder.decode(image_file(50, 30, format_=format_))
    assert image.size == (50, 30)
    assert image.pixels.shape == (3, 30, 50)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(decoder, orientation):
    picture = PIL.Image.new("RGB", (40, 20))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = picture.getexif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    image = decoder.decode(file.getvalue())
    assert image.size == ((20, 40) if orientation >= 5 else (40, 20))
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert image.pixels[(0, *corner)] == 255


def test_base64_text_is_accepted(decoder, image_file):
    data = image_file()
    assert (decoder.decode(base64.b64encode(data)).pixels == decoder.decode(data).pixels).all()
    assert (decoder.decode(base64.encodebytes(data)).pixels == decoder.decode(data).pixels).all()


def test_a_data_uri_is_accepted(decoder, image_file):
    data = image_file()
    text = base64.urlsafe_b64encode(data).rstrip(b"=")
    assert (decoder.decode(b"data:image/png;base64," + text).pixels == decoder.decode(data).pixels).all()


@pytest.mark.parametrize(
    ("encoded", "quoted"),
    [
        (b"", "b''"),
        (b"null", "'null'"),
        (b"junk", "'junk'"),
        (b"not an image", "'not an image'"),
        (b"QUJ", "'QUJ'"),
        (b"https://example.com/cat.png", "'https://example.com/cat.png'"),
        (b"data:image/png;base64,AAAA", "'data:image/png;base64,AAAA'"),
        (b"data:image/svg+xml,<svg/>", "'data:image/svg+xml,<svg/>'"),
        (b"A" * 2000, "'" + "A" * 60 + "…'"),
        (b"%PDF-1.7", "'%PDF-1.7'"),
        ("größe".encode(), repr("größe".encode())),
        (b"\x00\xff\xfe" * 50, repr((b"\x00\xff\xfe" * 6)[:16])),
        (b"\x89PNG\r\n\x1a\n", repr(b"\x89PNG\r\n\x1a\n")),
    ],
)
def test_anything_but_an_image_is_rejected_with_a_quotation_and_the_formats(decoder, encoded, quoted):
    with pytest.raises(InvalidArgumentError) as error:
        decoder.decode(encoded)
    assert str(error.value).startswith(f"IMAGE: got {quoted}, expected ")
    assert not encoded or "a file of JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF, its base64" in str(error.value)
    assert not encoded or "URLs are not fetched" in str(error.value)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_rejected(decoder, image_file, format_, kept):
    data = image_file(50, 50, format_=format_)
    with pytest.raises(InvalidArgumentError, match="IMAGE"):
        decoder.decode(data[: int(kept * len(data))])


def test_an_image_over_a_limit_is_rejected_with_its_value_and_the_limit(decoder, image_file):
    with pytest.raises(InvalidArgumentError, match=r"161 x 120 pixels.*at most 19200 pixels"):
        decoder.decode(image_file(161, 120))
    with pytest.raises(InvalidArgumentError, match=r"100001 bytes.*at most 100000 bytes"):
        decoder.decode(b"\x89PNG" + bytes(MAX_BYTES - 3))
    with pytest.raises(InvalidArgumentError, match="at most 100000 bytes"):
        decoder.decode(base64.b64encode(bytes(MAX_BYTES + 1)))


@pytest.mark.parametrize("write", [base64.b64encode, base64.encodebytes])
def test_an_image_of_the_maximum_size_may_be_sent_as_text(decoder, write):
    """It is rejected for its content, not for its size."""
    with pytest.raises(InvalidArgumentError, match="expected a file of"):
        decoder.decode(b"data:;base64," + write(b"\xff" * MAX_BYTES))


def test_text_over_the_limit_is_rejected_before_it_is_decoded(decoder, monkeypatch):
    monkeypatch.setattr("florence2_server.engine.images.image_file.image_file", None)
    with pytest.raises(InvalidArgumentError, match=r"200000 bytes.*at most 100000 bytes"):
        decoder.decode(b"A" * 200_000)


def animated(frames: int, format_: str, colors: int = 256) -> bytes:
    pictures = [PIL.Image.new("RGB", (12, 9), (20 * number, 0, 99)).quantize(colors) for number in range(frames)]
    if format_ in ("WEBP", "MPO", "AVIF"):
        pictures = [picture.convert("RGB") for picture in pictures]
    file = io.BytesIO()
    pictures[0].save(file, format_, save_all=True, append_images=pictures[1:])
    return file.getvalue()


@pytest.mark.parametrize("format_", ANIMATED)
def test_an_animation_is_decoded_up_to_the_limit_on_its_frames(decoder, format_):
    assert decoder.decode(animated(MAX_FRAMES, format_)).size == (12, 9)
    with pytest.raises(InvalidArgumentError, match=r"with more frames.*at most 5 frames"):
        decoder.decode(animated(MAX_FRAMES + 1, format_))


def test_counting_the_frames_of_a_gif_stops_at_the_limit():
    header, frame = b"GIF89a" + bytes([1, 0, 1, 0, 0, 0, 0]), b"," + bytes([0, 0, 0, 0, 1, 0, 1, 0, 0, 2, 1, 0x4C, 0])
    gif = header + frame * 3
    image = PIL.Image.open(io.BytesIO(gif))
    assert image.n_frames == 3
    assert has_more_frames(image, gif, 2)
    assert not has_more_frames(image, gif, 3)

    class Unread(bytes):
        def __getitem__(self, index):
            assert not isinstance(index, int) or index < len(gif)
            return super().__getitem__(index)

    assert has_more_frames(image, Unread(header + frame * 1_000_000), 2)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_animation_is_counted_or_rejected(decoder, seed):
    generator = random.Random(seed)
    files = [animated(3, format_) for format_ in ANIMATED] + [heic("burst"), heic("transparent")]
    for data in map(bytearray, files):
        for _ in range(5):
            data[generator.randrange(len(data))] = generator.randrange(256)
        with contextlib.suppress(InvalidArgumentError):
            decoder.decode(bytes(data[: generator.randrange(20, len(data))]))


def test_a_decompression_bomb_is_rejected_before_its_pixels_are_decoded(decoder, resizing):
    file = io.BytesIO()
    PIL.Image.new("1", (30_000, 30_000)).save(file, "PNG")
    with pytest.raises(InvalidArgumentError, match="pixels"):
        decoder.decode(file.getvalue() if len(file.getvalue()) <= MAX_BYTES else file.getvalue()[:MAX_BYTES])
    assert resizing.calls == 0


def test_concurrent_requests_about_one_image_decode_it_once(decoder, resizing, image_file):
    data = image_file()
    resizing.may_proceed.clear()
    with ThreadPoolExecutor(4) as callers:
        images = [callers.submit(decoder.decode, data) for _ in range(4)]
        resizing.may_proceed.set()
        first, *others = [image.result(10) for image in images]
    assert all(other is first for other in others)
    assert decoder.decode(data) is first
    assert resizing.calls == 1


def test_an_image_that_is_no_longer_in_use_is_forgotten(decoder, resizing, image_file):
    decoder.decode(image_file())
    decoder.decode(image_file())
    assert resizing.calls == 2


def test_the_failure_of_a_damaged_image_is_not_cached(decoder, image_file):
    damaged = image_file()[:200]
    for _ in range(2):
        with pytest.raises(InvalidArgumentError):
            decoder.decode(damaged)


@pytest.mark.usefixtures("no_collector")
def test_a_damaged_image_is_freed_at_once(decoder, image_file):
    damaged = image_file()[:200]
    references = sys.getrefcount(damaged)
    with contextlib.suppress(InvalidArgumentError):
        decoder.decode(damaged)
    assert sys.getrefcount(damaged) == references


def test_normalization_on_the_device_equals_the_processors_bit_for_bit(real_processor_folder):
    processor = Florence2Processor.from_pretrained(real_processor_folder).image_processor
    picture = PIL.Image.frombytes("RGB", (70, 50), random.Random(0).randbytes(70 * 50 * 3))
    file = io.BytesIO()
    picture.save(file, "PNG")
    pixels = ImageDecoder(resizing_of(processor), READER).decode(file.getvalue()).pixels
    assert pixels.dtype == torch.uint8
    expected = processor(images=picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(Normalization.of(processor)(pixels[None]), expected)
