"""Results: decoded answers, which are text, boxes, outlines or pieces of text.

Coordinates are float32 pixels of the image as displayed, x to the right and y down. Results keep the order of the
model's answer. `florence2.v1` has protobuf messages of the same names; `florence2.messages` converts between them.

Scores are the model's confidence in an item, 0 to 1. Likelihoods are the geometric means, 0 to 1, of the probabilities
that the model gave to the tokens of an item. `florence2.scores` says more about both. They are None if unknown.

Equality ignores `image_size`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from florence2.locations import ImageSizeLike, usable_regions
from florence2.plain_data import PlainData, items_data, number, numbers, numbers_or_none, size_list
from florence2.result_items import (
    Detection,
    Float32Array,
    ImageSize,
    Indices,
    Items,
    Score,
    Scores,
    Segment,
    TextRegion,
    corners,
    enclosing_boxes,
    have_equal_fields,
    outlines_per_label,
    per_label,
    score_at,
    set_field,
    set_scores,
)
from florence2.supervision_results import supervision_detections

if TYPE_CHECKING:
    import supervision

__all__ = [
    "Detection",
    "Detections",
    "Float32Array",
    "ImageSize",
    "Indices",
    "Items",
    "Result",
    "Score",
    "Scores",
    "Segment",
    "Segmentation",
    "Text",
    "TextRegion",
    "TextRegions",
    "have_equal_fields",
]


@dataclass(frozen=True)
class Text(PlainData):
    """A text."""

    text: str
    score: Score = None
    """Score of the complete answer, including its end token, 0 to 1; None if unknown."""
    likelihood: Score = None
    """Geometric mean of the probabilities of all tokens, including the end token, 0 to 1; None if unknown."""
    image_size: ImageSize | None = field(default=None, compare=False)
    """Width and height of the image as displayed, in pixels; None if unknown."""

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "text", "text": ..., "score": ..., "image_size": ...}`."""
        score = number(self.score)
        certainty = {} if score is None else {"score": score}
        return {"type": "text", "text": self.text, **certainty, "image_size": size_list(self.image_size)}


@dataclass(frozen=True, eq=False)
class Detections(Items[Detection]):
    """Detected objects.

    Raises:
        ValueError: the shapes do not match.
    """

    boxes: Float32Array
    """Shape (N, 4): x_min, y_min, x_max, y_max, as the model generated them, which may be inverted. If the model
    answered with polygons, the boxes that enclose them."""
    labels: list[str]
    """N categories, descriptions or phrases; empty strings for region proposals."""
    scores: Scores = None
    """Shape (N,), 0 to 1: scores of label and location together. None if unknown."""
    polygons: list[list[Float32Array]] | None = None
    """The outline of each object: a polygon of shape (M, 2) for each visible part. None if no object has an outline;
    only open-vocabulary detection returns polygons."""
    label_scores: Scores = None
    """Shape (N,), 0 to 1: scores of the labels alone, equal for boxes that share a label. None if unknown, and for
    region proposals, which have no labels."""
    location_scores: Scores = None
    """Shape (N,), 0 to 1: scores of the boxes or polygons alone. None if unknown."""
    likelihoods: Scores = None
    """Shape (N,), 0 to 1: geometric means of the token probabilities of label and location. None if unknown."""
    label_likelihoods: Scores = None
    """Shape (N,): those of the labels alone. None if unknown, and for region proposals."""
    location_likelihoods: Scores = None
    """Shape (N,): those of the boxes or polygons alone. None if unknown."""
    image_size: ImageSize | None = field(default=None, compare=False)
    """Width and height of the image as displayed, in pixels; None if unknown."""

    def __post_init__(self) -> None:
        set_field(self, "labels", list(self.labels))
        set_field(self, "boxes", per_label("boxes", self.boxes, len(self), 4))
        set_scores(self, "scores", "label_scores", "location_scores")
        set_scores(self, "likelihoods", "label_likelihoods", "location_likelihoods")
        if self.polygons is not None:
            outlines = outlines_per_label(self.polygons, len(self))
            set_field(self, "polygons", outlines if any(outlines) else None)

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
        than one pixel beyond the image is not usable either. If `image_size` is unknown, the right and the bottom edge
        are not checked.
        """
        return usable_regions(self.boxes, self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "detections", "image_size": ..., "items": [{"label": ..., "box": [...], ...}, ...]}`."""
        count = len(self)
        outlines = self.polygons or [[] for _ in range(count)]
        items = items_data(
            label=self.labels,
            box=numbers(self.boxes),
            score=numbers_or_none(self.scores, count),
            label_score=numbers_or_none(self.label_scores, count),
            location_score=numbers_or_none(self.location_scores, count),
            polygons=[[numbers(polygon) for polygon in polygons] or None for polygons in outlines],
        )
        return {"type": "detections", "image_size": size_list(self.image_size), "items": items}

    def to_supervision(self, image_size: ImageSizeLike | None = None) -> "supervision.Detections":
        """The objects as `supervision.Detections`, e.g. for its annotators, metrics and non-maximum suppression.

        Scores become `confidence`, labels `data["class_name"]`, and the index of a label among the sorted labels
        `class_id`. The corners of inverted boxes are put in order. If there are polygons, the objects have masks.

        Args:
            image_size: of the masks; None for the result's own.

        Raises:
            ImportError: the extra `[supervision]` is not installed.
            InvalidArgumentError: the image's size is unknown, which masks need.
        """
        masks = None if self.polygons is None else self.masks(image_size)
        return supervision_detections(self.boxes, self.labels, self.scores, masks)

    def outlines(self) -> Sequence[Sequence[Float32Array]]:  # noqa: D102  # as in the base class
        boxes = [[box] for box in corners(self.boxes)]
        return boxes if self.polygons is None else [own or box for own, box in zip(self.polygons, boxes, strict=True)]

    def _item(self, index: int) -> Detection:
        return Detection(
            box=self.boxes[index],
            label=self.labels[index],
            score=score_at(self.scores, index),
            polygons=[] if self.polygons is None else self.polygons[index],
            label_score=score_at(self.label_scores, index),
            location_score=score_at(self.location_scores, index),
            likelihood=score_at(self.likelihoods, index),
        )


@dataclass(frozen=True, eq=False)
class Segmentation(Items[Segment]):
    """Outlines of segments.

    Raises:
        ValueError: the shapes do not match.
    """

    polygons: list[list[Float32Array]]
    """The outline of each of N segments: a polygon of shape (M, 2) for each visible part."""
    labels: list[str]
    """N labels; empty strings, because the model generates none today."""
    scores: Scores = None
    """Shape (N,), 0 to 1: scores of the outlines. None if unknown."""
    likelihoods: Scores = None
    """Shape (N,), 0 to 1: geometric means of the token probabilities of the outlines. None if unknown."""
    image_size: ImageSize | None = field(default=None, compare=False)
    """Width and height of the image as displayed, in pixels; None if unknown."""

    def __post_init__(self) -> None:
        set_field(self, "labels", list(self.labels))
        set_field(self, "polygons", outlines_per_label(self.polygons, len(self)))
        set_scores(self, "scores", "likelihoods")

    @classmethod
    def empty(cls) -> Self:
        """No outlines."""
        return cls([], [])

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "segmentation", "image_size": ..., "items": [{"label": ..., "polygons": [...], ...}, ...]}`."""
        items = items_data(
            label=self.labels,
            polygons=[[numbers(polygon) for polygon in polygons] for polygons in self.polygons],
            score=numbers_or_none(self.scores, len(self)),
        )
        return {"type": "segmentation", "image_size": size_list(self.image_size), "items": items}

    def to_supervision(self, image_size: ImageSizeLike | None = None) -> "supervision.Detections":
        """The outlines as `supervision.Detections` with masks, and boxes that enclose the outlines.

        Arguments, data and errors are as for `Detections.to_supervision`.
        """
        boxes = enclosing_boxes(self.polygons)
        return supervision_detections(boxes, self.labels, self.scores, self.masks(image_size))

    def outlines(self) -> Sequence[Sequence[Float32Array]]:  # noqa: D102  # as in the base class
        return self.polygons

    def _item(self, index: int) -> Segment:
        return Segment(
            polygons=self.polygons[index],
            label=self.labels[index],
            score=score_at(self.scores, index),
            likelihood=score_at(self.likelihoods, index),
        )


@dataclass(frozen=True, eq=False)
class TextRegions(Items[TextRegion]):
    """Pieces of text and their locations.

    Raises:
        ValueError: the shapes do not match.
    """

    quads: Float32Array
    """Shape (N, 8): x1, y1 to x4, y4, clockwise from the text's top left corner."""
    labels: list[str]
    """N pieces of text."""
    scores: Scores = None
    """Shape (N,), 0 to 1: scores of text and quad together. None if unknown."""
    label_scores: Scores = None
    """Shape (N,), 0 to 1: scores of the text alone. None if unknown."""
    location_scores: Scores = None
    """Shape (N,), 0 to 1: scores of the quads alone. None if unknown."""
    likelihoods: Scores = None
    """Shape (N,), 0 to 1: geometric means of the token probabilities of text and quad. None if unknown."""
    label_likelihoods: Scores = None
    """Shape (N,): those of the text alone. None if unknown."""
    location_likelihoods: Scores = None
    """Shape (N,): those of the quads alone. None if unknown."""
    image_size: ImageSize | None = field(default=None, compare=False)
    """Width and height of the image as displayed, in pixels; None if unknown."""

    def __post_init__(self) -> None:
        set_field(self, "labels", list(self.labels))
        set_field(self, "quads", per_label("quads", self.quads, len(self), 8))
        set_scores(self, "scores", "label_scores", "location_scores")
        set_scores(self, "likelihoods", "label_likelihoods", "location_likelihoods")

    @classmethod
    def empty(cls) -> Self:
        """No text."""
        return cls(np.empty((0, 8), np.float32), [])

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "text_regions", "image_size": ..., "items": [{"text": ..., "quad": [...], ...}, ...]}`."""
        count = len(self)
        items = items_data(
            text=self.labels,
            quad=numbers(self.quads),
            score=numbers_or_none(self.scores, count),
            label_score=numbers_or_none(self.label_scores, count),
            location_score=numbers_or_none(self.location_scores, count),
        )
        return {"type": "text_regions", "image_size": size_list(self.image_size), "items": items}

    def to_supervision(self, image_size: ImageSizeLike | None = None) -> "supervision.Detections":  # noqa: ARG002
        """The text regions as `supervision.Detections`, with boxes that enclose the quads.

        The quads are in `data["xyxyxyxy"]`, where supervision keeps oriented boxes, and the texts are the labels. Other
        data and errors are as for `Detections.to_supervision`. `image_size` has no effect, because there are no masks.
        """
        quads = self.quads.reshape(-1, 4, 2)
        return supervision_detections(enclosing_boxes(self.outlines()), self.labels, self.scores, xyxyxyxy=quads)

    def outlines(self) -> Sequence[Sequence[Float32Array]]:  # noqa: D102  # as in the base class
        return [[quad] for quad in self.quads.reshape(-1, 4, 2)]

    def _item(self, index: int) -> TextRegion:
        return TextRegion(
            quad=self.quads[index],
            label=self.labels[index],
            score=score_at(self.scores, index),
            label_score=score_at(self.label_scores, index),
            location_score=score_at(self.location_scores, index),
            likelihood=score_at(self.likelihoods, index),
        )


Result: TypeAlias = Text | Detections | Segmentation | TextRegions
"""A decoded answer; the task determines the type."""
