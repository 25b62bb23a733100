"""The steps of tasks and cascades, as generators.

A plan yields the steps that may run at the same time, is sent their outcomes in the same order, and returns the
request's own outcome.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeAlias

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.plan_requests import caption_request, detection_request, detector_of, grounding_request, region_request
from florence2.prompts import check_request
from florence2.results import Detections, Text
from florence2.step_outcomes import Outcome, joined, located, result_or_error, step_response


class PlannedStep(NamedTuple):
    """A step that has not been started.

    Attributes:
        request: a task or a prompt.
        item: of a step about a region, the index of its detection; else None.
        error: why the step cannot run; None if it can.
    """

    request: v1.TaskRequest
    item: int | None = None
    error: v1.TaskError | None = None

    @classmethod
    def checked(cls, request: v1.TaskRequest, item: int | None = None) -> "PlannedStep":
        """A step whose request comes from the model's answer, which may be unusable: a blank caption, an empty box."""
        try:
            check_request(request)
        except InvalidArgumentError as error:
            return cls(request, item, v1.TaskError(status="INVALID_ARGUMENT", message=str(error)))
        return cls(request, item)

    def response(self, outcome: Outcome) -> v1.StepResponse:
        """The step's part of the response."""
        return step_response(self.request, outcome, self.item)


Plan: TypeAlias = Generator[Sequence[PlannedStep], Sequence[Outcome], Outcome]


def plan_of(request: v1.TaskRequest) -> Plan:
    """The plan of a task, a prompt or a cascade that `check_plan` has accepted."""
    match request.WhichOneof("task"):
        case "caption_grounding":
            return _caption_grounding(request)
        case "region_analysis":
            return _region_analysis(request)
    return _single_step(request)


def _single_step(request: v1.TaskRequest) -> Plan:
    (outcome,) = yield [PlannedStep(request)]
    return outcome


def _caption_grounding(request: v1.TaskRequest) -> Plan:
    first = PlannedStep(caption_request(request))
    (caption,) = yield [first]
    result = result_or_error(first.request, caption)
    if isinstance(result, v1.TaskError):
        return result
    assert isinstance(result, Text), "captions are text"
    second = PlannedStep.checked(grounding_request(request, result.text))
    (grounding,) = yield [second]
    return joined([first.response(caption), second.response(grounding)])


def _region_analysis(request: v1.TaskRequest) -> Plan:
    analysis = request.region_analysis
    first = PlannedStep(detection_request(request))
    (detection,) = yield [first]
    result = result_or_error(first.request, detection)
    if isinstance(result, v1.TaskError):
        return located(result, "region_analysis", [detector_of(analysis)])
    assert isinstance(result, Detections), "detectors detect"
    boxes = result.boxes[: analysis.max_regions or None].tolist()
    steps = [PlannedStep.checked(region_request(request, box), item) for item, box in enumerate(boxes)]
    outcomes = yield steps
    responses = [step.response(outcome) for step, outcome in zip(steps, outcomes, strict=True)]
    return joined([first.response(detection), *responses])
