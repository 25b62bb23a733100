"""Answers, decoded: words, boxes, outlines, pieces of text.

Coordinates are pixels of the image as displayed, x to the right and y downwards, float32. Results keep the
order of the model's answer. `florence2.v1` has messages of the same names, for the wire; `florence2.messages`
converts.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

Float32Array: TypeAlias = npt.NDArray[np.float32]
Indices: TypeAlias = slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any]

Item = TypeVar("Item")


class Detection(NamedTuple):
    """One object of `Detections`."""

    box: Float32Array
    """Shape (4,): x_min, y_min, x_max, y_max."""
    label: str
    score: float | None
    polygons: list[Float32Array]
    """The outline, each part of shape (M, 2); empty where the answer is boxes."""


class Segment(NamedTuple):
    """One outline of `Segmentation`."""

    polygons: list[Float32Array]
    """A polygon of shape (M, 2) for each part that is visible."""
    label: str


class TextRegion(NamedTuple):
    """One piece of text of `TextRegions`."""

    quad: Float32Array
    """Shape (8,): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    label: str
    """The words."""


@dataclass(frozen=True)
class Text:
    """An answer in words."""

    text: str

    def __str__(self) -> str:
        return self.text


class _Items(ABC, Generic[Item]):
    """What results with a label per item share: length, iteration, indexing, equality.

    An integer index gives one item; a slice, a list of integers or a boolean mask gives a smaller result.
    """

    labels: list[str]

    @abstractmethod
    def _item(self, index: int) -> Item: ...

    @abstractmethod
    def _subset(self, indices: Sequence[int]) -> Self: ...

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Item]:
        return (self._item(index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: Indices) -> Self: ...
    def __getitem__(self, index: int | Indices) -> Item | Self:
        if isinstance(index, int | np.integer):
            return self._item(range(len(self))[index])
        return self._subset(np.arange(len(self))[index].tolist())

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]  # subclasses are dataclasses
        return all(_equal(getattr(self, name), getattr(other, name)) for name in names)


@dataclass(frozen=True, eq=False)
class Detections(_Items[Detection]):
    """Objects that were found.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    boxes: Float32Array
    """Shape (N, 4): x_min, y_min, x_max, y_max. The corners are the model's own, which may be inverted; where
    it answers with polygons, the boxes that enclose them."""
    labels: list[str]
    """N categories, descriptions or phrases; empty strings for region proposals."""
    scores: Float32Array | None = None
    """Shape (N,), 0 to 1; None where they were not asked for."""
    polygons: list[list[Float32Array]] | None = None
    """For each object its outline, a polygon of shape (M, 2) for each part that is visible; None where no
    object has one. Only open-vocabulary detection answers with polygons."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "boxes", _rows("boxes", self.boxes, len(self), 4))
        if self.scores is not None:
            _set(self, "scores", _rows("scores", self.scores, len(self)))
        if self.polygons is not None:
            _set(self, "polygons", _outlines(self.polygons, len(self)))

    @classmethod
    def empty(cls) -> Self:
        """No objects."""
        return cls(np.empty((0, 4), np.float32), [])

    def _item(self, index: int) -> Detection:
        score = None if self.scores is None else float(self.scores[index])
        polygons = [] if self.polygons is None else self.polygons[index]
        return Detection(self.boxes[index], self.labels[index], score, polygons)

    def _subset(self, indices: Sequence[int]) -> Self:
        scores = None if self.scores is None else self.scores[indices]
        polygons = None if self.polygons is None else [self.polygons[index] for index in indices]
        return type(self)(self.boxes[indices], [self.labels[index] for index in indices], scores, polygons)


@dataclass(frozen=True, eq=False)
class Segmentation(_Items[Segment]):
    """Outlines of things.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    polygons: list[list[Float32Array]]
    """For each of N things its outline: a polygon of shape (M, 2) for each part that is visible."""
    labels: list[str]
    """N labels; the model gives none today, so they are empty strings."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "polygons", _outlines(self.polygons, len(self)))

    @classmethod
    def empty(cls) -> Self:
        """No outlines."""
        return cls([], [])

    def _item(self, index: int) -> Segment:
        return Segment(self.polygons[index], self.labels[index])

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)([self.polygons[index] for index in indices], [self.labels[index] for index in indices])


@dataclass(frozen=True, eq=False)
class TextRegions(_Items[TextRegion]):
    """Pieces of text and where they stand.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    quads: Float32Array
    """Shape (N, 8): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    labels: list[str]
    """N pieces of text."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "quads", _rows("quads", self.quads, len(self), 8))

    @classmethod
    def empty(cls) -> Self:
        """No text."""
        return cls(np.empty((0, 8), np.float32), [])

    def _item(self, index: int) -> TextRegion:
        return TextRegion(self.quads[index], self.labels[index])

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(self.quads[indices], [self.labels[index] for index in indices])


Result: TypeAlias = Text | Detections | Segmentation | TextRegions
"""What an answer decodes to; the task decides which."""


def _set(result: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is being made."""
    object.__setattr__(result, name, value)


def _rows(name: str, values: npt.ArrayLike, count: int, *row: int) -> Float32Array:
    """The values as float32 of shape (count, *row): a row for each label."""
    array = np.asarray(values, dtype=np.float32)
    expected = (count, *row)
    if array.shape == (0,) and count == 0:
        return array.reshape(expected)
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape {expected}, a row for each label, got {array.shape}")
    return array


def _outlines(outlines: Sequence[Sequence[npt.ArrayLike]], count: int) -> list[list[Float32Array]]:
    """The outlines as lists of (M, 2) float32 arrays: a list for each label."""
    if len(outlines) != count:
        raise ValueError(f"polygons: expected {count} lists, one for each label, got {len(outlines)}")
    return [[_polygon(polygon) for polygon in polygons] for polygons in outlines]


def _polygon(vertices: npt.ArrayLike) -> Float32Array:
    polygon = np.asarray(vertices, dtype=np.float32)
    if polygon.ndim != 2 or polygon.shape[1] != 2:
        raise ValueError(f"polygons: expected arrays of shape (M, 2), got {polygon.shape}")
    return polygon


def _equal(one: object, other: object) -> bool:
    """Equality that looks into lists of arrays."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
