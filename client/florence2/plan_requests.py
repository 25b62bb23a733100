"""The requests inside a request: those of a task list, and those of a cascade's steps."""

from typing import Final

from google.protobuf.message import Message

from florence2 import v1
from florence2.tasks import task_of

TASK_LIST: Final = "task_list"
_PLANS: Final = frozenset({"caption_grounding", "region_analysis", TASK_LIST})

_CAPTIONS: Final = {
    v1.CaptionDetail.CAPTION_DETAIL_UNSPECIFIED: "caption",
    v1.CaptionDetail.CAPTION_DETAIL_BRIEF: "caption",
    v1.CaptionDetail.CAPTION_DETAIL_DETAILED: "detailed_caption",
    v1.CaptionDetail.CAPTION_DETAIL_PARAGRAPH: "more_detailed_caption",
}
_REGION_TASKS: Final = {
    v1.RegionTask.REGION_TASK_UNSPECIFIED: "region_to_description",
    v1.RegionTask.REGION_TASK_DESCRIPTION: "region_to_description",
    v1.RegionTask.REGION_TASK_CATEGORY: "region_to_category",
    v1.RegionTask.REGION_TASK_TEXT: "region_to_ocr",
    v1.RegionTask.REGION_TASK_SEGMENTATION: "region_to_segmentation",
}
_DEFAULT_DETECTOR: Final = "object_detection"


def plan_name(request: v1.TaskRequest) -> str:
    """What the request asks for: the name of its field in the oneof `task`, e.g. `"caption"` or `"task_list"`.

    For a prompt it is the task whose token begins it, else `"free_prompt"`.
    """
    name = request.WhichOneof("task")
    return name if name in _PLANS else task_of(request).name


def is_single_step(request: v1.TaskRequest) -> bool:
    """Whether the request is a task or a prompt, not a cascade or a task list."""
    return request.WhichOneof("task") not in _PLANS


def listed_requests(request: v1.TaskRequest) -> list[v1.TaskRequest]:
    """The requests of a task list, each with the adapter and the options of the list that it does not set itself."""
    requests = []
    for task in request.task_list.tasks:
        complete = _with_options_of(request)
        complete.MergeFrom(task)  # `raw` is true if either is
        requests.append(complete)
    return requests


def fields_of_task(task: v1.TaskRequest) -> list[str]:
    """The fields of a request of a task list whose errors have its path. A missing adapter is the list's."""
    return [name for name in v1.TaskRequest.DESCRIPTOR.fields_by_name if name != "adapter" or task.adapter]


def certain_steps(request: v1.TaskRequest) -> int:
    """The number of steps that the answer to a task, a prompt or a cascade takes at least."""
    return 2 if request.WhichOneof("task") == "caption_grounding" else 1


def detector_of(analysis: v1.RegionAnalysis) -> str:
    """The name of the task that finds the regions."""
    return analysis.WhichOneof("detector") or _DEFAULT_DETECTOR


def caption_request(request: v1.TaskRequest) -> v1.TaskRequest:
    """The first step of a `caption_grounding`."""
    step = _with_options_of(request)
    _task(step, _CAPTIONS[request.caption_grounding.detail]).SetInParent()
    return step


def grounding_request(request: v1.TaskRequest, caption: str) -> v1.TaskRequest:
    """The second step of a `caption_grounding`."""
    step = _with_options_of(request)
    step.phrase_grounding.caption = caption
    return step


def detection_request(request: v1.TaskRequest) -> v1.TaskRequest:
    """The first step of a `region_analysis`."""
    step = _with_options_of(request)
    detector = detector_of(request.region_analysis)
    message = _task(step, detector)
    message.SetInParent()
    message.MergeFrom(getattr(request.region_analysis, detector))
    return step


def region_request(request: v1.TaskRequest, box: tuple[float, float, float, float]) -> v1.TaskRequest:
    """A further step of a `region_analysis`.

    Args:
        request: the cascade.
        box: x_min, y_min, x_max, y_max in pixels.
    """
    x_min, y_min, x_max, y_max = box
    step = _with_options_of(request)
    region = v1.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)
    getattr(step, _REGION_TASKS[request.region_analysis.region_task]).region.CopyFrom(region)
    return step


def _with_options_of(request: v1.TaskRequest) -> v1.TaskRequest:
    """A request with nothing but what applies to the steps of another: its adapter and its options."""
    generation = request.generation if request.HasField("generation") else None
    return v1.TaskRequest(generation=generation, raw=request.raw, adapter=request.adapter)


def _task(request: v1.TaskRequest, name: str) -> Message:
    message: Message = getattr(request, name)
    return message
