"""Colors of labels, and perceptual distances between colors."""

from collections.abc import Iterable
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

Color: TypeAlias = tuple[int, int, int]

BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
PALETTE: tuple[Color, ...] = (
    (230, 57, 70),
    (29, 120, 216),
    (46, 160, 67),
    (255, 183, 3),
    (142, 68, 173),
    (251, 111, 30),
    (0, 187, 198),
    (233, 84, 180),
    (150, 200, 40),
    (121, 85, 60),
    (90, 90, 220),
    (0, 128, 110),
)
# Linear sRGB to the responses of the eye's cones, and those to lightness and two axes of color (Oklab, B. Ottosson).
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def assigned_colors(labels: Iterable[str]) -> dict[str, Color]:
    """A color for each label, by its checksum; the next free one if another label has that color."""
    places: dict[str, int] = {}
    free = set(range(len(PALETTE)))
    for label in sorted(set(labels)):
        start = crc32(label.encode("utf-8", "replace"))
        preferred = [(start + step) % len(PALETTE) for step in range(len(PALETTE))]
        places[label] = next((place for place in preferred if place in free), preferred[0])
        free.discard(places[label])
    return {label: PALETTE[place] for label, place in places.items()}


def contrast(color: Color) -> Color:
    """Black or white, whichever is legible on the color (luma of ITU-R BT.601)."""
    red, green, blue = color
    return BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else WHITE


def distances(some: npt.ArrayLike, others: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Distances in Oklab, in which black and white are 1 apart.

    Args:
        some: RGB, 0 to 255, of shape (..., 3).
        others: RGB of a shape that broadcasts with the first.
    """
    distance: npt.NDArray[np.float64] = np.linalg.norm(_oklab(some) - _oklab(others), axis=-1)
    return distance


def _oklab(rgb: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(rgb, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    oklab: npt.NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T
    return oklab
