"""Images in many real-world forms, through a real server: all show the example scene, whose text is CAFE OPEN."""

import base64
import contextlib
import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import florence2
import numpy as np
import PIL.Image
import pytest
from florence2.errors import InvalidArgumentError

from tests.conftest import EXAMPLE_SCENE, HEIC_FILES
from tests.server.conftest import children_of

WORDS = "CAFE OPEN"


@pytest.fixture(scope="module")
def client(server):
    with florence2.Client(server.grpc_url, timeout=120) as client:
        yield client


def scene() -> PIL.Image.Image:
    return PIL.Image.open(EXAMPLE_SCENE).convert("RGB")


def ink() -> PIL.Image.Image:
    """Black on a transparent background."""
    gray = scene().convert("L")
    picture = PIL.Image.new("RGBA", gray.size)
    picture.putalpha(gray.point(lambda value: 255 - value))
    return picture


def wide() -> PIL.Image.Image:
    """16-bit grayscale, without black and white."""
    return PIL.Image.fromarray((np.asarray(scene().convert("L"), np.uint16) // 2 + 20) * 257)


def saved(picture: PIL.Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


SOURCES = {
    **{f"ink, {form}": lambda form=form: saved(ink(), form, lossless=True) for form in ("PNG", "WEBP", "TIFF")},
    "ink, GIF": lambda: saved(ink(), "GIF"),
    "ink, AVIF": lambda: saved(ink(), "AVIF"),
    "ink, palette": lambda: saved(ink().quantize(256, PIL.Image.Quantize.FASTOCTREE), "PNG"),
    "ink, LA": lambda: saved(ink().convert("LA"), "PNG"),
    **{f"ink, PIL image of mode {mode}": lambda mode=mode: ink().convert(mode) for mode in ("RGBA", "LA", "RGBa")},
    "ink, array": lambda: np.asarray(ink()),
    "16 bits, PNG": lambda: saved(wide(), "PNG"),
    "16 bits, TIFF": lambda: saved(wide(), "TIFF"),
    "16 bits, PIL image": wide,
    "AVIF": lambda: saved(scene(), "AVIF"),
    "data URI": lambda: f"data:image/png;base64,{base64.b64encode(saved(scene(), 'PNG')).decode()}",
    "URL-safe base64": lambda: base64.urlsafe_b64encode(saved(scene(), "PNG")).rstrip(b"="),
    "BytesIO": lambda: io.BytesIO(saved(scene(), "PNG")),
    "bytearray": lambda: bytearray(saved(scene(), "PNG")),
    "memoryview": lambda: memoryview(saved(scene(), "PNG")),
    "gray array": lambda: np.asarray(scene().convert("L")),
    "array": lambda: np.asarray(scene()),
    "large array": lambda: np.asarray(scene().resize((4032, 3024))),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_scene_is_read_in_every_form(client, source):
    assert client.read_text(source()).text == WORDS


def test_a_large_image_is_passed_in_a_file_that_is_removed_afterward(server, client):
    picture = SOURCES["large array"]()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.read_text, picture)
        seen = set[Path]()
        while not call.done():
            seen.update(files_in_memory(server.process_id))
        assert call.result().text == WORDS
    assert seen
    deadline = time.monotonic() + 10
    while (left := files_in_memory(server.process_id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def files_in_memory(server_process: int) -> list[Path]:
    """The image files that the server's descendants have open."""
    opened = []
    for process in children_of(server_process):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                opened.append(descriptor.readlink())
    return [link for link in opened if "florence2-image" in link.name]


def test_a_file_object_is_read(client):
    with EXAMPLE_SCENE.open("rb") as file:
        assert client.read_text(file).text == WORDS


def test_heic_is_read_by_the_server(client):
    """Only the labels are compared, because the image is small and its compression lossy."""
    found = client.detect((HEIC_FILES / "plain.heic").read_bytes())
    assert {"red circle", "green triangle", "blue square"} <= set(found.labels)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pixels_are_rejected_by_mode(client, mode):
    with pytest.raises(InvalidArgumentError, match=f"IMAGE: got 'pixels of mode {mode}'"):
        client.read_text(saved(PIL.Image.new(mode, (8, 8)), "TIFF"))


@pytest.mark.parametrize("text", ["null", "junk", "https://example.com/cat.png"])
def test_an_error_quotes_what_was_sent(client, text):
    with pytest.raises(InvalidArgumentError, match=f"IMAGE: got '{text}', expected a file of JPEG.*AVIF, HEIF"):
        client.read_text(text.encode())
