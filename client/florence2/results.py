"""Answers, decoded: words, boxes, outlines, pieces of text.

Coordinates are pixels of the image as displayed, x to the right and y downwards, float32. Results keep the
order of the model's answer. `florence2.v1` has messages of the same names, for the wire; `florence2.messages`
converts.

A score is the geometric mean of the probabilities that the model gave the tokens of what it wrote, 0 to 1. It is not
calibrated: 0.9 does not mean that nine in ten are right. `florence2.scores` says which tokens count. Scores are None
where nothing is known of the tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, Self, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from florence2.locations import usable_regions

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
    label_score: float | None
    location_score: float | None


class Segment(NamedTuple):
    """One outline of `Segmentation`."""

    polygons: list[Float32Array]
    """A polygon of shape (M, 2) for each part that is visible."""
    label: str
    score: float | None


class TextRegion(NamedTuple):
    """One piece of text of `TextRegions`."""

    quad: Float32Array
    """Shape (8,): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    label: str
    """The words."""
    score: float | None
    label_score: float | None
    location_score: float | None


@dataclass(frozen=True)
class Text:
    """An answer in words."""

    text: str
    score: float | None = None
    """Of the whole answer, its end token included, 0 to 1; not calibrated."""

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
    """Shape (N,), 0 to 1: of labels and locations together. Not calibrated."""
    polygons: list[list[Float32Array]] | None = None
    """For each object its outline, a polygon of shape (M, 2) for each part that is visible; None where no
    object has one. Only open-vocabulary detection answers with polygons."""
    label_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: of the labels alone, equal where one label has several boxes. None also for region
    proposals, which have no labels."""
    location_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: of the boxes or polygons alone."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "boxes", _rows("boxes", self.boxes, len(self), 4))
        _set_scores(self, "scores", "label_scores", "location_scores")
        if self.polygons is not None:
            _set(self, "polygons", _outlines(self.polygons, len(self)))

    @classmethod
    def empty(cls) -> Self:
        """No objects."""
        return cls(np.empty((0, 4), np.float32), [])

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Which boxes can be sent back as a region, shape (N,): those that are neither empty nor inverted.

            for box in found[found.usable].boxes:
                print(client.describe_region(image, box))

        The model sometimes outputs empty or inverted boxes, which a request must not contain. A box that starts more
        than one pixel to the left of the image or above it is not usable either. The limits on the right and at the
        bottom depend on the image's size, which is not known here.
        """
        return usable_regions(self.boxes)

    def _item(self, index: int) -> Detection:
        return Detection(
            box=self.boxes[index],
            label=self.labels[index],
            score=_score(self.scores, index),
            polygons=[] if self.polygons is None else self.polygons[index],
            label_score=_score(self.label_scores, index),
            location_score=_score(self.location_scores, index),
        )

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(
            boxes=self.boxes[indices],
            labels=[self.labels[index] for index in indices],
            scores=_chosen(self.scores, indices),
            polygons=None if self.polygons is None else [self.polygons[index] for index in indices],
            label_scores=_chosen(self.label_scores, indices),
            location_scores=_chosen(self.location_scores, indices),
        )


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
    scores: Float32Array | None = None
    """Shape (N,), 0 to 1: of the outlines, which are all that the model writes. Not calibrated."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "polygons", _outlines(self.polygons, len(self)))
        _set_scores(self, "scores")

    @classmethod
    def empty(cls) -> Self:
        """No outlines."""
        return cls([], [])

    def _item(self, index: int) -> Segment:
        return Segment(self.polygons[index], self.labels[index], _score(self.scores, index))

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(
            polygons=[self.polygons[index] for index in indices],
            labels=[self.labels[index] for index in indices],
            scores=_chosen(self.scores, indices),
        )


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
    scores: Float32Array | None = None
    """Shape (N,), 0 to 1: of words and quads together. Not calibrated."""
    label_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: of the words alone."""
    location_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: of the quads alone."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "quads", _rows("quads", self.quads, len(self), 8))
        _set_scores(self, "scores", "label_scores", "location_scores")

    @classmethod
    def empty(cls) -> Self:
        """No text."""
        return cls(np.empty((0, 8), np.float32), [])

    def _item(self, index: int) -> TextRegion:
        return TextRegion(
            quad=self.quads[index],
            label=self.labels[index],
            score=_score(self.scores, index),
            label_score=_score(self.label_scores, index),
            location_score=_score(self.location_scores, index),
        )

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(
            quads=self.quads[indices],
            labels=[self.labels[index] for index in indices],
            scores=_chosen(self.scores, indices),
            label_scores=_chosen(self.label_scores, indices),
            location_scores=_chosen(self.location_scores, indices),
        )


Result: TypeAlias = Text | Detections | Segmentation | TextRegions
"""What an answer decodes to; the task decides which."""


def _set(result: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass while it is being made."""
    object.__setattr__(result, name, value)


def _set_scores(result: _Items[Any], *names: str) -> None:
    """Make arrays with a score for each label of those fields that are not None."""
    for name in names:
        values = getattr(result, name)
        if values is not None:
            _set(result, name, _rows(name, values, len(result)))


def _score(scores: Float32Array | None, index: int) -> float | None:
    return None if scores is None else float(scores[index])


def _chosen(scores: Float32Array | None, indices: Sequence[int]) -> Float32Array | None:
    return None if scores is None else scores[indices]


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
