"""Clips whatever outlines a model generates to the picture. Coordinates are pixels."""

from collections.abc import Callable, Sequence
from math import isnan
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Point: TypeAlias = tuple[float, float]
Rectangle: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_FAR = 1e6  # stands for infinity; far beyond any picture, and products of it are exact enough


def box_inside(box: npt.NDArray[Any], size: tuple[int, int]) -> Rectangle | None:
    """The part of a box, inverted or not, that is inside a picture; None if there is none, or if it contains NaN."""
    x_1, y_1, x_2, y_2 = np.asarray(box, np.float64).tolist()
    if any(map(isnan, (x_1, y_1, x_2, y_2))):
        return None
    left, right, top, bottom = min(x_1, x_2), max(x_1, x_2), min(y_1, y_2), max(y_1, y_2)
    if right < 0 or bottom < 0 or left > size[0] or top > size[1]:
        return None
    return max(left, 0.0), max(top, 0.0), min(right, float(size[0])), min(bottom, float(size[1]))


def polygon_inside(vertices: npt.NDArray[Any], size: tuple[int, int]) -> list[Point]:
    """The part of a polygon that is inside a picture (Sutherland and Hodgman), empty if it contains NaN.

    Args:
        vertices: shape (M, 2).
        size: width and height of the picture.
    """
    array = np.asarray(vertices, np.float64).reshape(-1, 2)
    if np.isnan(array).any():
        return []
    points: list[Point] = [(x, y) for x, y in array.clip(-_FAR, _FAR).tolist()]
    for axis, limit in ((0, float(size[0])), (1, float(size[1]))):
        points = _clipped(points, axis, lambda value: value >= 0.0, 0.0)
        points = _clipped(points, axis, lambda value, limit=limit: value <= limit, limit)  # type: ignore[misc]
    return points


def _clipped(points: list[Point], axis: int, is_inside: Callable[[float], bool], limit: float) -> list[Point]:
    """The part of a polygon on one side of a vertical (axis 0) or horizontal (axis 1) line."""
    kept: list[Point] = []
    for before, point in zip([*points[-1:], *points[:-1]], points, strict=True):
        if is_inside(before[axis]) != is_inside(point[axis]):
            part = (limit - before[axis]) / (point[axis] - before[axis])
            other = before[1 - axis] + part * (point[1 - axis] - before[1 - axis])
            kept.append((limit, other) if axis == 0 else (other, limit))
        if is_inside(point[axis]):
            kept.append(point)
    return kept


def bounds(outlines: Sequence[Sequence[Point]]) -> Rectangle:
    """The box around all points, of which there must be at least one."""
    columns, rows = zip(*(point for outline in outlines for point in outline), strict=True)
    return min(columns), min(rows), max(columns), max(rows)
