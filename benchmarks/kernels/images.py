"""Preparing an image: decoding beside Pillow alone, and sending an array beside sending its JPEG.

`python -m benchmarks.kernels.images` measures both. Photographs of 1.2 and 12 megapixels are drawn by a seeded
generator: clouds of all sizes and sensor noise, saved as JPEG with quality 85 and an EXIF header, as cameras do.

Bytes to pixels: `ImageDecoder.decode`, including base64, hash and EXIF, beside Pillow's own decoding and resizing of
the same file, with Florence-2-base's processor (768 x 768 pixels). The pixels must be those of that processor.

Array beside JPEG: round-trips to a real server without an embedding cache, minus the compute time that the server
reports. The demo checkpoint reads 128 x 128 pixels; resizing to that takes little less time than to 768 x 768.
"""

import argparse
import base64
import io
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import florence2
import numpy as np
import PIL.Image
from florence2 import v1
from florence2_server.config import EngineConfig
from florence2_server.engine.images.decoding import ImageDecoder
from florence2_server.engine.images.image_file import ImageReader
from florence2_server.engine.images.resizing import resizing_of
from florence2_server.tritonserver import TritonServer
from rich.console import Console
from rich.table import Table
from transformers import Florence2Processor

from benchmarks.harness.arguments import add_configs_argument
from benchmarks.harness.spread import Spread, ratios

ROUNDS = 25
SIZES = {"1.2 megapixels": (1280, 960), "12 megapixels": (4032, 3024)}
_CLOUDS = ((8, 0.94), (40, 0.62), (200, 0.39), (800, 0.19))  # details across, and their strength
_SENSOR_NOISE = 3.0  # standard deviation, of 255
_JPEG_QUALITY = 85
_CAMERA, _EXIF_MAKE = "Florence", 0x010F
_READY_SECONDS = 180.0
_TIMEOUT_SECONDS = 60.0
_WARM_UP_ROUNDS = 2


class DifferentPixelsError(Exception):
    """Our pixels differ from those of the processor."""


def photograph(size: tuple[int, int], seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pixels of shape (height, width, 3) that compress like a photograph."""
    random = np.random.default_rng(seed)
    width, height = size
    pixels = np.full((height, width, 3), 128, np.float32)
    for details, strength in _CLOUDS:
        small = PIL.Image.fromarray(random.integers(0, 256, (details, details, 3), dtype=np.uint8))
        pixels += (np.asarray(small.resize(size, PIL.Image.Resampling.BICUBIC), np.float32) - 128) * strength
    pixels += random.normal(0, _SENSOR_NOISE, (height, width, 1)).astype(np.float32)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """The photograph as a JPEG file with EXIF."""
    exif = PIL.Image.Exif()
    exif[_EXIF_MAKE] = _CAMERA
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=_JPEG_QUALITY, exif=exif)
    return file.getvalue()


def bytes_to_pixels(processor: Any, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Measure CPU seconds of our decoder and of Pillow alone in alternation, for each size, as a file and as base64.

    Raises:
        DifferentPixelsError: our pixels differ from the processor's.
    """
    decoder = ImageDecoder(resizing_of(processor), ImageReader.of(EngineConfig(checkpoint="any")))
    size = (processor.size.width, processor.size.height)
    found = {}
    for name, extent in SIZES.items():
        file = jpeg(photograph(extent))
        expected = processor(images=PIL.Image.open(io.BytesIO(file)), do_rescale=False, do_normalize=False)
        if not np.array_equal(decoder.decode(file).pixels.numpy(), expected["pixel_values"][0]):
            raise DifferentPixelsError(f"{name}: pixels differ from those of transformers' processor")
        for form, sent in (("file", file), ("base64", base64.b64encode(file))):
            pair = (lambda sent=sent: decoder.decode(sent), lambda file=file: _pillow_alone(file, size, processor))
            found[f"{name}, {form}, {len(file) / 1e6:.1f} MB"] = _alternate(pair, rounds)
    return found


def _pillow_alone(file: bytes, size: tuple[int, int], processor: Any) -> None:
    image = PIL.Image.open(io.BytesIO(file))
    image.load()
    image.resize(size, processor.resample)


def array_beside_jpeg(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Measure round-trips with an array and with its JPEG in alternation, in seconds, for each size."""
    found = {}
    with (
        tempfile.TemporaryFile() as log,
        TritonServer(environment={"FLORENCE2_EMBEDDING_CACHE_BYTES": "0"}, log=log) as server,
    ):
        server.wait_until_ready(_READY_SECONDS)
        with florence2.Client(server.grpc_url, timeout=_TIMEOUT_SECONDS) as client:
            for name, extent in SIZES.items():
                pixels = photograph(extent)
                file = jpeg(pixels)
                pair = (lambda pixels=pixels: _round_trip(client, pixels), lambda file=file: _round_trip(client, file))
                found[name] = _alternate(pair, rounds, timed=False)
    return found


def _round_trip(client: florence2.Client, image: Any) -> float:
    """Seconds of a round-trip, minus those of the model."""
    request = v1.TaskRequest(caption=v1.Caption(), generation=v1.GenerationOptions(max_new_tokens=2, num_beams=1))
    begin = time.perf_counter()
    usage = client.run(image, request).usage
    return time.perf_counter() - begin - (usage.encode_milliseconds + usage.decode_milliseconds) / 1000


def _alternate(pair: Sequence[Callable[[], Any]], rounds: int, timed: bool = True) -> list[tuple[float, float]]:
    """The seconds that each of two functions takes, or the values they return, round by round."""
    seconds = [tuple(_seconds(each) if timed else each() for each in pair) for _ in range(_WARM_UP_ROUNDS + rounds)]
    return [(first, second) for first, second in seconds[_WARM_UP_ROUNDS:]]


def _seconds(function: Callable[[], Any]) -> float:
    """Seconds of this thread's CPU time, which the machine's other load hardly affects."""
    begin = time.thread_time()
    function()
    return time.thread_time() - begin


def print_table(
    console: Console, title: str, sides: tuple[str, str], found: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Print both sides' milliseconds and their ratio: median (minimum to maximum) over the rounds."""
    table = Table(title=title, title_justify="left")
    table.add_column("image")
    for heading in (*(f"{side}, ms" for side in sides), "ratio"):
        table.add_column(heading, justify="right")
    for name, rounds in found.items():
        first, second = zip(*rounds, strict=True)
        spreads = [Spread.of([1000 * value for value in side]) for side in (first, second)]
        cells = [f"{spread.median:.1f}" for spread in spreads]
        ratio = ratios(first, second)
        table.add_row(name, *cells, f"{ratio.median:.2f} [dim]({ratio.least:.2f} to {ratio.greatest:.2f})[/dim]")
    console.print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels.images", description="Preparing images.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default {ROUNDS}")
    add_configs_argument(parser)
    arguments = parser.parse_args()
    if not (arguments.configs / "processor_config.json").is_file():
        sys.exit(f"benchmark: {arguments.configs} has no processor_config.json")
    console = Console()
    try:
        found = bytes_to_pixels(Florence2Processor.from_pretrained(arguments.configs).image_processor, arguments.rounds)
    except DifferentPixelsError as error:
        sys.exit(f"benchmark: {error}")
    print_table(console, "bytes to pixels, CPU time", ("ours", "Pillow alone"), found)
    print_table(console, "round-trip, minus the model", ("array", "its JPEG"), array_beside_jpeg(arguments.rounds))


if __name__ == "__main__":
    main()
