"""Masks of outlines."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

# Pillow also fills each pixel that an edge touches. Pixels are divided, and the part at the center decides, so that
# masks are exact to an eighth of a pixel, or less finely if that many parts would take too much memory.
_DIVISIONS: Final = (8, 4, 2)
_MOST_PARTS: Final = 2**24
# Pillow draws nothing if a coordinate exceeds its integers. No image is this large.
_FARTHEST: Final = 2.0**17


def filled_masks(outlines: Sequence[Sequence[Float32Array]], image_size: tuple[int, int]) -> BoolArray:
    """A mask for each outline: the pixels whose centers are inside one of its polygons.

    Args:
        outlines: polygons of shape (M, 2) in pixels. Those with less than three vertices, or with coordinates that are
            not finite, are empty; those that extend beyond the image are clipped.
        image_size: width and height of the image in pixels.

    Returns:
        Shape (N, height, width).
    """
    width, height = image_size
    masks = np.zeros((len(outlines), height, width), bool)
    for mask, polygons in zip(masks, outlines, strict=True):
        for polygon in polygons:
            if len(polygon) > 2 and np.isfinite(polygon).all():
                _fill(mask, np.clip(polygon, -_FARTHEST, _FARTHEST))
    return masks


def _fill(mask: BoolArray, polygon: Float32Array) -> None:
    from PIL import Image, ImageDraw  # here, because health checks import results, but draw nothing

    height, width = mask.shape
    left, top = np.clip(np.floor(polygon.min(axis=0)), 0, (width, height)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(polygon.max(axis=0)), 0, (width, height)).astype(int).tolist()
    columns, rows = right - left, bottom - top
    if columns == 0 or rows == 0:
        return
    parts = next((each for each in _DIVISIONS if columns * rows * each**2 <= _MOST_PARTS), 1)
    canvas = Image.new("1", (columns * parts, rows * parts))
    vertices = (polygon - (left, top)) * parts
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in vertices.tolist()], fill=1)
    mask[top:bottom, left:right] |= np.asarray(canvas)[parts // 2 :: parts, parts // 2 :: parts]
