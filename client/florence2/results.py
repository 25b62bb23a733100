"""Results: decoded answers, which are text, boxes, outlines or pieces of text.

Coordinates are float32 pixels of the image as displayed, x to the right and y down. Results keep the order of the
model's answer. `florence2.v1` has protobuf messages of the same names; `florence2.messages` converts between them.

A score is the geometric mean, 0 to 1, of the probabilities that the model gave to the tokens of an item. It is not
calibrated: 0.9 does not mean that nine in ten are right. `florence2.scores` says which tokens count. Scores are None if
the tokens' probabilities are unknown.
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
    """The outline: polygons of shape (M, 2). Empty if the model answered with a box."""
    label_score: float | None
    location_score: float | None


class Segment(NamedTuple):
    """One outline of `Segmentation`."""

    polygons: list[Float32Array]
    """A polygon of shape (M, 2) for each visible part."""
    label: str
    score: float | None


class TextRegion(NamedTuple):
    """One piece of text of `TextRegions`."""

    quad: Float32Array
    """Shape (8,): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    label: str
    """The text."""
    score: float | None
    label_score: float | None
    location_score: float | None


@dataclass(frozen=True)
class Text:
    """A text."""

    text: str
    score: float | None = None
    """Score of the complete answer, including its end token, 0 to 1; not calibrated."""

    def __str__(self) -> str:
        return self.text


class _Items(ABC, Generic[Item]):
    """Base of results with a label for each item: length, iteration, indexing, equality.

    An integer index returns one item; a slice, a list of integers or a boolean mask returns a smaller result.
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
        return have_equal_fields(self, other) if type(self) is type(other) else NotImplemented


@dataclass(frozen=True, eq=False)
class Detections(_Items[Detection]):
    """Detected objects.

    Raises:
        ValueError: the shapes do not match.
    """

    boxes: Float32Array
    """Shape (N, 4): x_min, y_min, x_max, y_max, as the model generated them, which may be inverted. If the model
    answered with polygons, the boxes that enclose them."""
    labels: list[str]
    """N categories, descriptions or phrases; empty strings for region proposals."""
    scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of label and location together. Not calibrated."""
    polygons: list[list[Float32Array]] | None = None
    """The outline of each object: a polygon of shape (M, 2) for each visible part. None if no object has an outline;
    only open-vocabulary detection returns polygons."""
    label_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of the labels alone, equal for boxes that share a label. None for region proposals,
    which have no labels."""
    location_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of the boxes or polygons alone."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "boxes", _per_label("boxes", self.boxes, len(self), 4))
        _set_scores(self, "scores", "label_scores", "location_scores")
        if self.polygons is not None:
            _set(self, "polygons", _outlines(self.polygons, len(self)))

    @classmethod
    def empty(cls) -> Self:
        """No objects."""
        return cls(np.empty((0, 4), np.float32), [])

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Whether each box can be sent as a region of a request, shape (N,).

            for box in found[found.usable].boxes:
                print(client.describe_region(image, box))

        The model sometimes generates empty or inverted boxes, which a request must not contain. A box that extends more
        than one pixel beyond the left or top edge of the image is not usable either. The limits at the right and bottom
        depend on the image's size, which is not known here.
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
    """Outlines of segments.

    Raises:
        ValueError: the shapes do not match.
    """

    polygons: list[list[Float32Array]]
    """The outline of each of N segments: a polygon of shape (M, 2) for each visible part."""
    labels: list[str]
    """N labels; empty strings, because the model generates none today."""
    scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of the outlines. Not calibrated."""

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
    """Pieces of text and their locations.

    Raises:
        ValueError: the shapes do not match.
    """

    quads: Float32Array
    """Shape (N, 8): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    labels: list[str]
    """N pieces of text."""
    scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of text and quad together. Not calibrated."""
    label_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of the text alone."""
    location_scores: Float32Array | None = None
    """Shape (N,), 0 to 1: scores of the quads alone."""

    def __post_init__(self) -> None:
        _set(self, "labels", list(self.labels))
        _set(self, "quads", _per_label("quads", self.quads, len(self), 8))
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
"""A decoded answer; the task determines the type."""


def have_equal_fields(one: object, other: object) -> bool:
    """Equality of two instances of the same dataclass that compares arrays by their elements."""
    names = [field.name for field in fields(one)]  # type: ignore[arg-type]  # a dataclass
    return all(_equal(getattr(one, name), getattr(other, name)) for name in names)


def _set(result: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass during its construction."""
    object.__setattr__(result, name, value)


def _set_scores(result: _Items[Any], *names: str) -> None:
    """Convert the fields that are not None to arrays with a score for each label."""
    for name in names:
        values = getattr(result, name)
        if values is not None:
            _set(result, name, _per_label(name, values, len(result)))


def _score(scores: Float32Array | None, index: int) -> float | None:
    return None if scores is None else float(scores[index])


def _chosen(scores: Float32Array | None, indices: Sequence[int]) -> Float32Array | None:
    return None if scores is None else scores[indices]


def _per_label(name: str, values: npt.ArrayLike, count: int, *shape: int) -> Float32Array:
    """The values as a float32 array of shape (count, *shape): an element for each label."""
    array = np.asarray(values, dtype=np.float32)
    expected = (count, *shape)
    if array.shape == (0,) and count == 0:
        return array.reshape(expected)
    if array.shape != expected:
        raise ValueError(f"{name}: got shape {array.shape}, expected {expected}, an element for each label")
    return array


def _outlines(outlines: Sequence[Sequence[npt.ArrayLike]], count: int) -> list[list[Float32Array]]:
    """The outlines as lists of float32 arrays of shape (M, 2): a list for each label."""
    if len(outlines) != count:
        raise ValueError(f"polygons: got {len(outlines)} lists, expected {count}, one for each label")
    return [[_polygon(polygon) for polygon in polygons] for polygons in outlines]


def _polygon(vertices: npt.ArrayLike) -> Float32Array:
    polygon = np.asarray(vertices, dtype=np.float32)
    if polygon.ndim != 2 or polygon.shape[1] != 2:
        raise ValueError(f"polygons: got an array of shape {polygon.shape}, expected (M, 2)")
    return polygon


def _equal(one: object, other: object) -> bool:
    """Equality that compares lists of arrays by their elements."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other
