"""The items of results, and what all results with items have in common."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from florence2._arguments import check_count, check_probability, check_texts
from florence2.errors import InvalidArgumentError, wrong_type
from florence2.locations import ImageSizeLike, width_and_height
from florence2.masks import BoolArray, filled_masks
from florence2.plain_data import PlainData

if TYPE_CHECKING:
    import supervision

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
    """One text region of `TextRegions`."""

    quad: Float32Array
    """Shape (8,): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    label: str
    """The text."""
    score: Score
    label_score: Score
    location_score: Score
    likelihood: Score


class Items(PlainData, Generic[ItemT]):
    """Base of results with a label for each item: length, iteration, indexing, equality.

    An integer index returns one item; a slice, a list of integers or a boolean mask returns a smaller result.
    """

    labels: list[str]
    scores: Scores
    image_size: ImageSize | None

    @abstractmethod
    def _item(self, index: int) -> ItemT: ...

    @abstractmethod
    def outlines(self) -> Sequence[Sequence[Float32Array]]:
        """The polygons of each item, of shape (M, 2): its outline or, without one, the corners of its box or quad."""

    @abstractmethod
    def to_supervision(self, image_size: ImageSizeLike | None = None) -> "supervision.Detections":
        """The items as `supervision.Detections`; see the subclasses."""

    def above(self, score: float) -> Self:
        """The items whose score is higher, as `found[found.scores > score]` if scores are known.

        Raises:
            InvalidArgumentError: scores are unknown, because the server is too old.
        """
        return self._subset(np.flatnonzero(self._known_scores() > score).tolist())

    def filtered(
        self,
        min_score: float | None = None,
        max_items: int | None = None,
        labels: Collection[str] | None = None,
    ) -> Self:
        """The items that meet all conditions, in the model's order.

        Args:
            min_score: the lowest score, 0 to 1.
            max_items: the maximum number of items, at least 1: those with the highest scores or, if scores are unknown,
                the first ones.
            labels: the accepted labels, exactly as the model writes them.

        Raises:
            TypeError: an argument has the wrong type.
            InvalidArgumentError: an argument is out of range, or scores are unknown and `min_score` is given.
        """
        found = self
        if labels is not None:
            accepted = check_labels(labels)
            found = found[[label in accepted for label in found.labels]]
        if min_score is not None:
            lowest = check_probability("min_score", min_score)
            # In float32, as scores are: 0.9 means the float32 that is called 0.9.
            found = found[found._known_scores() >= np.float32(lowest)]
        if max_items is not None and len(found) > check_count("max_items", max_items):
            order = range(len(found)) if found.scores is None else np.argsort(-found.scores, kind="stable").tolist()
            found = found[sorted(order[:max_items])]
        return found

    def masks(self, image_size: ImageSizeLike | None = None) -> BoolArray:
        """The mask of each item: True for the pixels whose centers are inside its polygons, its box or its quad.

        Args:
            image_size: width and height of the image in pixels; None for the result's own `image_size`.

        Returns:
            Shape (N, height, width): a byte for each pixel of each item.

        Raises:
            InvalidArgumentError: the image's size is unknown.
        """
        return filled_masks(self.outlines(), self._size(image_size))

    def _subset(self, indices: Sequence[int]) -> Self:
        # All other fields have an element for each item.
        names = [field.name for field in fields(self) if field.name != "image_size"]  # type: ignore[arg-type]
        chosen = {name: _chosen(getattr(self, name), indices) for name in names}
        return replace(self, **chosen)  # type: ignore[type-var]  # all subclasses are dataclasses

    def _size(self, image_size: ImageSizeLike | None) -> ImageSize:
        size = self.image_size if image_size is None else image_size
        if size is None:
            raise InvalidArgumentError.of_field("image_size", None, "(width, height), which this result does not know")
        return width_and_height(size)

    def _known_scores(self) -> Float32Array:
        if self.scores is None and len(self) > 0:
            requirement = "known scores; the server sends none, but `likelihoods` may be known"
            raise InvalidArgumentError.of_field("scores", None, requirement)
        known: Float32Array = np.empty(0, np.float32) if self.scores is None else self.scores
        return known

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
        chosen = index if isinstance(index, slice) else _index_array(index)
        return self._subset(np.arange(len(self))[chosen].tolist())

    def __eq__(self, other: object) -> bool:
        return have_equal_fields(self, other) if type(self) is type(other) else NotImplemented


def _index_array(index: object) -> npt.NDArray[Any]:
    """Several indices, or a mask, as an array of shape (M,): NumPy would take a tuple for indices of several axes.

    Raises:
        TypeError: it is neither.
    """
    array = np.asarray(index)
    if array.shape == (0,) and array.dtype != bool:
        return array.astype(int)
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise wrong_type("index", index, "an int, a slice, a sequence of int, or a mask with a bool for each item")
    return array


def check_labels(labels: object) -> frozenset[str]:
    """Check a collection of labels.

    Raises:
        TypeError: it is not a collection of str.
    """
    if isinstance(labels, str) or not isinstance(labels, Collection):
        raise wrong_type("labels", labels, "a collection of str")
    return frozenset(check_texts("labels", list(labels)))


def corners(boxes: Float32Array) -> Float32Array:
    """The corners of boxes of shape (N, 4) as polygons of shape (N, 4, 2)."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def enclosing_boxes(outlines: Sequence[Sequence[Float32Array]]) -> Float32Array:
    """The box around the polygons of each item, of shape (N, 4); zeros if it has no vertices."""
    boxes = np.zeros((len(outlines), 4), np.float32)
    for box, polygons in zip(boxes, outlines, strict=True):
        if vertices := [polygon for polygon in polygons if len(polygon)]:
            every = np.concatenate(vertices)
            box[:] = (*every.min(axis=0), *every.max(axis=0))
    return boxes


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


def _chosen(values: Any, indices: Sequence[int]) -> Any:
    """Some elements of an array or a list; None if `values` is None."""
    if isinstance(values, list):
        return [values[index] for index in indices]
    return None if values is None else values[indices]


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
