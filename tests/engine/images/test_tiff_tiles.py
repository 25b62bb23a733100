"""The tiles of TIFF files, which may be larger than the image and are decoded as a whole."""

import struct

import numpy as np
import pytest
from florence2.errors import InvalidArgumentError
from florence2_server.config import EngineConfig
from florence2_server.engine.images.image_file import ImageReader

SHORT, LONG = 3, 4


def tiled(size: tuple[int, int], tile: tuple[int, int]) -> bytes:
    """An uncompressed gray TIFF file (TIFF 6.0, section 15) with one tile, whose values count up."""
    pixels = (np.arange(tile[0] * tile[1]) % 251).astype(np.uint8).tobytes()
    entries = [
        (256, LONG, 1, size[0]),
        (257, LONG, 1, size[1]),
        (258, SHORT, 1, 8),
        (259, SHORT, 1, 1),
        (262, SHORT, 1, 1),
        (277, SHORT, 1, 1),
        (322, LONG, 1, tile[0]),
        (323, LONG, 1, tile[1]),
        (324, LONG, 1, 8 + 2 + 10 * 12 + 4),
        (325, LONG, 1, len(pixels)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + pixels


def load(size: tuple[int, int], tile: tuple[int, int], max_pixels: int) -> np.ndarray:
    file = tiled(size, tile)
    reader = ImageReader.of(EngineConfig(checkpoint="unused", max_image_pixels=max_pixels))
    return np.asarray(reader.load(file, file))


@pytest.mark.parametrize(
    ("size", "tile", "max_pixels"),
    [
        ((16, 16), (256, 256), 256 * 256),  # as in the small levels of a pyramid
        ((100, 50), (112, 64), 100 * 50),  # the only tile of an image of the maximum size
    ],
)
def test_tiles_within_the_limit_are_read(size, tile, max_pixels):
    whole = (np.arange(tile[0] * tile[1]) % 251).reshape(tile[::-1])
    np.testing.assert_array_equal(load(size, tile, max_pixels)[..., 0], whole[: size[1], : size[0]])


@pytest.mark.parametrize("tile", [(272, 256), (65552, 16)])
def test_larger_tiles_are_rejected_with_their_size_and_the_limit(tile):
    with pytest.raises(InvalidArgumentError) as error:
        load((16, 16), tile, 256 * 256)
    assert f"tiles of {tile[0]} x {tile[1]} pixels" in str(error.value)
    assert "at most 65536 pixels" in str(error.value)
