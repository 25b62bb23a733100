"""Transparent images are composited in parts: the same pixels, without memory for complete copies."""

import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from florence2.display import displayed

PIXELS_A_PART = 250_000
MEASURE = """
import io, sys
from pathlib import Path
import PIL.Image
from florence2.display import displayed_file

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM")) * 1024

def saved(mode, size, turn):
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, "PNG", compress_level=1, exif=exif(turn))
    return file

def exif(turn):
    tags = PIL.Image.Exif()
    tags[0x0112] = turn
    return tags

mode, width, height, turn = sys.argv[1], *map(int, sys.argv[2:])
displayed_file(PIL.Image.open(saved(mode, (64, 64), turn)))  # lazy imports and tables
file = saved(mode, (width, height), turn)
Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the resident size
before = peak()
displayed_file(PIL.Image.open(file))
print((peak() - before) / (width * height))
"""


def bytes_per_pixel(mode: str, size: tuple[int, int], turn: int = 1) -> float:
    """The peak memory of converting a PNG file."""
    command = [sys.executable, "-c", MEASURE, mode, *map(str, (*size, turn))]
    return float(subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stdout)


@pytest.mark.parametrize(
    ("mode", "size", "turn"),
    [("RGBA", (4000, 4000), 1), ("RGBA", (4000, 4000), 6), ("LA", (4000, 4000), 1), ("RGBA", (1_600_000, 10), 1)],
    ids=str,
)
def test_a_transparent_image_takes_little_more_memory_than_itself_and_the_result(mode, size, turn):
    assert 3 < bytes_per_pixel(mode, size, turn) < 9


@pytest.mark.parametrize("size", [(1300, 1700), (3, 700_001), (2_300_000, 2), (PIXELS_A_PART, 2)], ids=str)
def test_the_parts_cover_the_image(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    picture = PIL.Image.fromarray(pixels)
    whole = PIL.Image.alpha_composite(PIL.Image.new("RGBA", size, "white"), picture).convert("RGB")
    assert displayed(picture) == whole
