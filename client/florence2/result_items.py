"""The items of results, and what all results with items have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]
ImageSize: TypeAlias = tuple[int, int]
"""Width and height of an image as displayed, in pixels."""

Scores: TypeAlias = Float32Array | Any
"""Shape (N,), 0 to 1; None if unknown. `Any` stands for None, so that `found[found.scores > 0.5]` type-checks: current
servers always send what scores are made of."""

Score: TypeAlias = float | Any
"""0 to 1; None if unknown, for which `Any` stands as in `Scores`."""

ItemT = TypeVar("ItemT")


class Detection(NamedTuple):
    """One object of `Detections`."""

    box: Float32Array
    """Shape (4,): x_min, y_min, x_max, y_max."""
    label: str
    score: Score
    polygons: list[Float32Array]
    """The outline: polygons of shape (M, 2). Empty if the model answered with a box."""
    label_score: Score
    location_score: Score
    likelihood: Score


class Segment(NamedTuple):
    """One outline of `Segmentation`."""

    polygons: list[Float32Array]
    """A polygon of shape (M, 2) for each visible part."""
    label: str
    score: Score
    likelihood: Score


class TextRegion(NamedTuple):
    """One piece of text of `TextRegions`."""

    quad: Float32Array
    """Shape (8,): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    label: str
    """The text."""
    score: Score
    label_score: Score
    location_score: Score
    likelihood: Score


class Items(ABC, Generic[ItemT]):
    """Base of results with a label for each item: length, iteration, indexing, equality.

    An integer index returns one item; a slice, a list of integers or a boolean mask returns a smaller result.
    """

    labels: list[str]

    @abstractmethod
    def _item(self, index: int) -> ItemT: ...

    @abstractmethod
    def _subset(self, indices: Sequence[int]) -> Self: ...

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[ItemT]:
        return (self._item(index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> ItemT: ...
    @overload
    def __getitem__(self, index: Indices) -> Self: ...
    def __getitem__(self, index: int | Indices) -> ItemT | Self:
        if isinstance(index, int | np.integer):
            return self._item(range(len(self))[index])
        return self._subset(np.arange(len(self))[index].tolist())

    def __eq__(self, other: object) -> bool:
        return have_equal_fields(self, other) if type(self) is type(other) else NotImplemented


def have_equal_fields(one: object, other: object) -> bool:
    """Equality of two instances of the same dataclass that compares arrays by their elements."""
    names = [field.name for field in fields(one) if field.compare]  # type: ignore[arg-type]  # a dataclass
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _equal(one: object, other: object) -> bool:
    """Equality that compares lists of arrays by their elements."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


def score_at(scores: Scores, index: int) -> Score:
    """The score of one item; None if the scores are unknown."""
    return None if scores is None else float(scores[index])


def chosen(scores: Scores, indices: Sequence[int]) -> Scores:
    """The scores of some items; None if the scores are unknown."""
    return None if scores is None else scores[indices]


def set_field(result: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass during its construction."""
    object.__setattr__(result, name, value)


def set_scores(result: Items[Any], *names: str) -> None:
    """Convert the fields that are not None to arrays with a score for each label."""
    for name in names:
        values = getattr(result, name)
        if values is not None:
            set_field(result, name, per_label(name, values, len(result)))


def per_label(name: str, values: npt.ArrayLike, count: int, *shape: int) -> Float32Array:
    """The values as a float32 array of shape (count, *shape): an element for each label.

    Raises:
        ValueError: the shape does not match.
    """
    array = np.asarray(values, dtype=np.float32)
    expected = (count, *shape)
    if array.shape == (0,) and count == 0:
        return array.reshape(expected)
    if array.shape != expected:
        raise ValueError(f"{name}: got shape {array.shape}, expected {expected}, an element for each label")
    return array


def outlines_per_label(outlines: Sequence[Sequence[npt.ArrayLike]], count: int) -> list[list[Float32Array]]:
    """The outlines as lists of float32 arrays of shape (M, 2): a list for each label.

    Raises:
        ValueError: the number of outlines, or the shape of a polygon, does not match.
    """
    if len(outlines) != count:
        raise ValueError(f"polygons: got {len(outlines)} lists, expected {count}, one for each label")
    return [[_polygon(polygon) for polygon in polygons] for polygons in outlines]


def _polygon(vertices: npt.ArrayLike) -> Float32Array:
    polygon = np.asarray(vertices, dtype=np.float32)
    if polygon.ndim != 2 or polygon.shape[1] != 2:
        raise ValueError(f"polygons: got an array of shape {polygon.shape}, expected (M, 2)")
    return polygon
