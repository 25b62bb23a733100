"""Results of requests that are answered in several steps: cascades and task lists.

One step may fail, or be truncated, while others succeed. These results say so, and nothing of what succeeded is lost;
`is_complete` is true if no step failed or was truncated.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from florence2.errors import Florence2Error
from florence2.plain_data import PlainData, error_data, numbers, result_or_error_data
from florence2.results import Detections, Float32Array, Result, Segmentation, Text, have_equal_fields


@dataclass(frozen=True)
class GroundedCaption(PlainData):
    """A caption of the image, and the locations of its phrases."""

    caption: Text
    """The caption."""
    detections: Detections | None
    """The phrases that were found, as labels, and their boxes. None if that step failed, which is not the same as
    finding nothing."""
    error: Florence2Error | None = None
    """Why there are no detections."""
    is_caption_truncated: bool = False
    """Whether the caption ends at its length limit."""
    is_grounding_truncated: bool = False
    """Whether phrases may be missing, because the answer ended at its length limit."""

    @property
    def is_complete(self) -> bool:
        """Whether both steps succeeded and neither was truncated."""
        return self.error is None and not (self.is_caption_truncated or self.is_grounding_truncated)

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "grounded_caption", "caption": {...}, "detections": {...}, ...}`."""
        return {
            "type": "grounded_caption",
            "caption": self.caption.to_dict(),
            "detections": result_or_error_data(self.detections, self.error),
            "is_caption_truncated": self.is_caption_truncated,
            "is_grounding_truncated": self.is_grounding_truncated,
        }


@dataclass(frozen=True, eq=False)
class AnalyzedRegion(PlainData):
    """One region of a `RegionAnalysis`."""

    item: int
    """The index of its detection."""
    box: Float32Array
    """Shape (4,): x_min, y_min, x_max, y_max, as the detector generated them."""
    label: str
    """The detector's label."""
    result: Text | Segmentation | None
    """The answer about the region; None if that step failed, e.g. because the box is inverted."""
    error: Florence2Error | None = None
    """Why there is no answer."""
    is_truncated: bool = False
    """Whether the answer ends at its length limit."""

    def to_dict(self) -> dict[str, Any]:
        """`{"item": ..., "box": [...], "label": ..., "result": {...}, "is_truncated": ...}`."""
        return {
            "item": self.item,
            "box": numbers(self.box),
            "label": self.label,
            "result": result_or_error_data(self.result, self.error),
            "is_truncated": self.is_truncated,
        }

    def __eq__(self, other: object) -> bool:
        return have_equal_fields(self, other) if type(self) is type(other) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # like everything that has arrays


@dataclass(frozen=True)
class RegionAnalysis(PlainData):
    """Detections, and what was found out about the region of each."""

    detections: Detections
    """Everything that the detector found."""
    regions: list[AnalyzedRegion] = field(default_factory=list)
    """The analyzed regions, in the order of the detections: all of them, or the first `max_regions`."""
    is_detection_truncated: bool = False
    """Whether detections may be missing, because the detector's answer ended at its length limit."""

    @property
    def is_complete(self) -> bool:
        """Whether every region has an answer, and nothing was truncated."""
        return not self.is_detection_truncated and not any(each.error or each.is_truncated for each in self.regions)

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "region_analysis", "detections": {...}, "regions": [{...}, ...], ...}`."""
        return {
            "type": "region_analysis",
            "detections": self.detections.to_dict(),
            "regions": [region.to_dict() for region in self.regions],
            "is_detection_truncated": self.is_detection_truncated,
        }


@dataclass(frozen=True)
class TaskResults(PlainData):
    """Results of a task list."""

    outcomes: list["Result | PlanResult | Florence2Error"]
    """For each request, in their order, its result or its error. `Answer.steps` also shows what was truncated."""

    def to_dict(self) -> dict[str, Any]:
        """`{"type": "task_results", "outcomes": [{...}, ...]}`: results as their own `to_dict`, or errors."""
        outcomes = [error_data(each) if isinstance(each, Florence2Error) else each.to_dict() for each in self.outcomes]
        return {"type": "task_results", "outcomes": outcomes}


PlanResult: TypeAlias = GroundedCaption | RegionAnalysis | TaskResults
"""The result of a cascade or a task list; the request determines the type."""
