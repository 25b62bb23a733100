"""Checks a request of any kind as far as possible without the image."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.plan_requests import (
    TASK_LIST,
    certain_steps,
    detection_request,
    is_single_step,
    listed_requests,
)
from florence2.prompts import check_request


@dataclass(frozen=True)
class PlanLimits:
    """How much one request may ask for.

    Attributes:
        tasks: the maximum number of requests in a task list.
        steps: the maximum number of steps of a request; each is one generation.
    """

    tasks: int = 16
    steps: int = 128


DEFAULT_LIMITS: Final = PlanLimits()
"""Those of a server that is not configured otherwise."""


def check_plan(request: v1.TaskRequest, limits: PlanLimits | None = None) -> None:
    """Check everything that can be checked without the image.

    Args:
        request: a request of any kind.
        limits: those of the server; None if they are not known, as in a client.

    Raises:
        TypeError: `request` is not a `TaskRequest`.
        InvalidArgumentError: as `florence2.prompts.check_request`, also for each request of a task list; or the request
            asks for more than `limits` allow. The message names the field by its full path, the value and the limit.
    """
    if not isinstance(request, v1.TaskRequest) or is_single_step(request):
        check_request(request)
        return
    name = request.WhichOneof("task")
    if request.prompt:
        raise InvalidArgumentError.of_field("prompt", request.prompt, f"no prompt with {name}")
    _check_options(request)
    match name:
        case "task_list":
            _check_task_list(request, limits)
        case "region_analysis":
            _check_region_analysis(request)
        case "caption_grounding":
            _check_known("caption_grounding.detail", request.caption_grounding.detail, v1.CaptionDetail)
    if limits:
        _check_certain_steps(request, limits)


def _check_options(request: v1.TaskRequest) -> None:
    """Check the adapter and the options of a cascade or a task list."""
    plain = v1.TaskRequest(caption=v1.Caption(), adapter=request.adapter)
    plain.priority, plain.timeout_seconds = request.priority, request.timeout_seconds
    plain.generation.CopyFrom(request.generation)
    check_request(plain)


def _check_certain_steps(request: v1.TaskRequest, limits: PlanLimits) -> None:
    is_list = request.WhichOneof("task") == TASK_LIST
    steps = sum(map(certain_steps, request.task_list.tasks)) if is_list else certain_steps(request)
    if steps > limits.steps:
        requirement = f"at most {limits.steps} (max_steps)"
        raise InvalidArgumentError.of_field(f"{request.WhichOneof('task')}", f"{steps} steps", requirement)


def _check_task_list(request: v1.TaskRequest, limits: PlanLimits | None) -> None:
    tasks = request.task_list.tasks
    if not tasks:
        raise InvalidArgumentError.of_field("task_list.tasks", [], "at least one request")
    if limits and len(tasks) > limits.tasks:
        requirement = f"at most {limits.tasks} (max_tasks)"
        raise InvalidArgumentError.of_field("task_list.tasks", f"{len(tasks)} requests", requirement)
    for index, (task, complete) in enumerate(zip(tasks, listed_requests(request), strict=True)):
        path = f"task_list.tasks[{index}]"
        _check_listed(task, path)
        try:
            check_plan(complete)
        except InvalidArgumentError as error:
            raise _located(error, path) from None


def _check_listed(task: v1.TaskRequest, path: str) -> None:
    if task.WhichOneof("task") == TASK_LIST:
        raise InvalidArgumentError.of_field(f"{path}.task_list", "a task list", "any request but a task list")
    for field in ("priority", "timeout_seconds"):
        if value := getattr(task, field):
            raise InvalidArgumentError.of_field(f"{path}.{field}", value, f"0, because {field} applies to all tasks")


def _check_region_analysis(request: v1.TaskRequest) -> None:
    analysis = request.region_analysis
    _check_known("region_analysis.region_task", analysis.region_task, v1.RegionTask)
    if analysis.max_regions < 0:
        raise InvalidArgumentError.of_field("region_analysis.max_regions", analysis.max_regions, "at least 0")
    try:
        check_request(detection_request(request))
    except InvalidArgumentError as error:
        raise _located(error, "region_analysis") from None  # of the detector, because the options have been checked


def _located(error: InvalidArgumentError, path: str) -> InvalidArgumentError:
    """The error of a request inside another, at its full path."""
    return InvalidArgumentError.of_field(f"{path}.{error.field}", error.value, f"{error.requirement}")


def _check_known(field: str, value: int, enumeration: EnumTypeWrapper) -> None:
    if value not in enumeration.values():
        raise InvalidArgumentError.of_field(field, value, f"one of {', '.join(enumeration.keys())}")
