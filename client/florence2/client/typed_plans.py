"""The requests of the clients' methods that take several steps: cascades and task lists."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, TypeVar

from florence2 import v1
from florence2._arguments import check_integer
from florence2.client.typed_requests import CaptionDetail, Phrases, detect_open_vocabulary, ground
from florence2.errors import InvalidArgumentError, require_type, wrong_type

RegionTask: TypeAlias = Literal["description", "category", "text", "segmentation"]
"""A task about each region: `describe_region`, `classify_region`, `read_region` or `segment_region`."""

RegionDetector: TypeAlias = Literal["objects", "descriptions", "proposals"]
"""What finds the regions: `detect`, `describe_regions` or `propose_regions`."""

_CAPTION_DETAILS: Final[dict[CaptionDetail, v1.CaptionDetail]] = {
    "brief": v1.CaptionDetail.CAPTION_DETAIL_BRIEF,
    "detailed": v1.CaptionDetail.CAPTION_DETAIL_DETAILED,
    "paragraph": v1.CaptionDetail.CAPTION_DETAIL_PARAGRAPH,
}
_REGION_TASKS: Final[dict[RegionTask, v1.RegionTask]] = {
    "description": v1.RegionTask.REGION_TASK_DESCRIPTION,
    "category": v1.RegionTask.REGION_TASK_CATEGORY,
    "text": v1.RegionTask.REGION_TASK_TEXT,
    "segmentation": v1.RegionTask.REGION_TASK_SEGMENTATION,
}
_DETECTORS: Final[dict[RegionDetector, v1.RegionAnalysis]] = {
    "objects": v1.RegionAnalysis(object_detection={}),
    "descriptions": v1.RegionAnalysis(dense_region_caption={}),
    "proposals": v1.RegionAnalysis(region_proposal={}),
}
_MOST_REGIONS: Final = 2**31 - 1

KeyT = TypeVar("KeyT", bound=str)
ValueT = TypeVar("ValueT")


def run_tasks(requests: Sequence[v1.TaskRequest]) -> v1.TaskRequest:
    """Request several tasks about one image. The given requests are copied."""
    if isinstance(requests, str | bytes) or not isinstance(requests, Sequence):
        raise wrong_type("requests", requests, "a sequence of TaskRequest")
    for index, request in enumerate(requests):
        require_type(f"requests[{index}]", request, v1.TaskRequest)
    if not requests:
        raise InvalidArgumentError.of_field("requests", requests, "at least one request")
    return v1.TaskRequest(task_list=v1.TaskList(tasks=requests))


def ground_caption(detail: CaptionDetail) -> v1.TaskRequest:
    """Request a caption and the locations of its phrases."""
    chosen = _chosen("detail", detail, _CAPTION_DETAILS)
    return v1.TaskRequest(caption_grounding=v1.CaptionGrounding(detail=chosen))


def analyze_regions(
    region_task: RegionTask,
    detector: RegionDetector | None,
    caption: Phrases | None,
    query: Phrases | None,
    max_regions: int | None,
) -> v1.TaskRequest:
    """Request detections and a task about the region of each."""
    given = {"detector": detector, "caption": caption, "query": query}
    if len(names := [name for name, value in given.items() if value is not None]) > 1:
        raise InvalidArgumentError.of_field(names[1], given[names[1]], f"None, because {names[0]} is given")
    analysis = v1.RegionAnalysis(region_task=_chosen("region_task", region_task, _REGION_TASKS))
    if caption is not None:
        analysis.phrase_grounding.CopyFrom(ground(caption).request.phrase_grounding)
    elif query is not None:
        analysis.open_vocabulary_detection.CopyFrom(detect_open_vocabulary(query).request.open_vocabulary_detection)
    else:
        analysis.MergeFrom(_chosen("detector", "objects" if detector is None else detector, _DETECTORS))
    if max_regions is not None:
        analysis.max_regions = _region_count(max_regions)
    return v1.TaskRequest(region_analysis=analysis)


def _region_count(max_regions: object) -> int:
    count = check_integer("max_regions", max_regions)
    if not 1 <= count <= _MOST_REGIONS:
        raise InvalidArgumentError.of_field("max_regions", max_regions, f"1 to {_MOST_REGIONS}")
    return count


def _chosen(argument: str, value: KeyT, choices: Mapping[KeyT, ValueT]) -> ValueT:
    require_type(argument, value, str)
    if value not in choices:
        *others, last = [f'"{choice}"' for choice in choices]
        raise InvalidArgumentError.of_field(argument, value, f"{', '.join(others)} or {last}")
    return choices[value]
