"""Results: decoded answers, which are text, boxes, outlines or pieces of text.

Coordinates are float32 pixels of the image as displayed, x to the right and y down. Results keep the order of the
model's answer. `florence2.v1` has protobuf messages of the same names; `florence2.messages` converts between them.

Scores are the model's confidence in an item, 0 to 1. Likelihoods are the geometric means, 0 to 1, of the probabilities
that the model gave to the tokens of an item. `florence2.scores` says more about both. They are None if unknown.

Two results are equal if their answers are, whatever the size of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from florence2.locations import usable_regions
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
    chosen,
    have_equal_fields,
    outlines_per_label,
    per_label,
    score_at,
    set_field,
    set_scores,
)

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
class Text:
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
            set_field(self, "polygons", outlines_per_label(self.polygons, len(self)))

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
            score=score_at(self.scores, index),
            polygons=[] if self.polygons is None else self.polygons[index],
            label_score=score_at(self.label_scores, index),
            location_score=score_at(self.location_scores, index),
            likelihood=score_at(self.likelihoods, index),
        )

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(
            boxes=self.boxes[indices],
            labels=[self.labels[index] for index in indices],
            scores=chosen(self.scores, indices),
            polygons=None if self.polygons is None else [self.polygons[index] for index in indices],
            label_scores=chosen(self.label_scores, indices),
            location_scores=chosen(self.location_scores, indices),
            likelihoods=chosen(self.likelihoods, indices),
            label_likelihoods=chosen(self.label_likelihoods, indices),
            location_likelihoods=chosen(self.location_likelihoods, indices),
            image_size=self.image_size,
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

    def _item(self, index: int) -> Segment:
        return Segment(
            polygons=self.polygons[index],
            label=self.labels[index],
            score=score_at(self.scores, index),
            likelihood=score_at(self.likelihoods, index),
        )

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(
            polygons=[self.polygons[index] for index in indices],
            labels=[self.labels[index] for index in indices],
            scores=chosen(self.scores, indices),
            likelihoods=chosen(self.likelihoods, indices),
            image_size=self.image_size,
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

    def _item(self, index: int) -> TextRegion:
        return TextRegion(
            quad=self.quads[index],
            label=self.labels[index],
            score=score_at(self.scores, index),
            label_score=score_at(self.label_scores, index),
            location_score=score_at(self.location_scores, index),
            likelihood=score_at(self.likelihoods, index),
        )

    def _subset(self, indices: Sequence[int]) -> Self:
        return type(self)(
            quads=self.quads[indices],
            labels=[self.labels[index] for index in indices],
            scores=chosen(self.scores, indices),
            label_scores=chosen(self.label_scores, indices),
            location_scores=chosen(self.location_scores, indices),
            likelihoods=chosen(self.likelihoods, indices),
            label_likelihoods=chosen(self.label_likelihoods, indices),
            location_likelihoods=chosen(self.location_likelihoods, indices),
            image_size=self.image_size,
        )


Result: TypeAlias = Text | Detections | Segmentation | TextRegions
"""A decoded answer; the task determines the type."""
