"""Reads responses: decodes their texts, and puts the results of several steps together."""

from dataclasses import dataclass
from typing import Final

from florence2 import v1
from florence2.client.answers import Answer, FinishReason, StepAnswer
from florence2.client.typed_requests import ResultT
from florence2.errors import Florence2Error, InvalidArgumentError, ServerError, error_of_status, located
from florence2.parsing import decode
from florence2.plan_results import AnalyzedRegion, GroundedCaption, PlanResult, RegionAnalysis, TaskResults
from florence2.plans import is_single_step
from florence2.results import Detections, Result, Segmentation, Text
from florence2.scores import TokenScores
from florence2.tasks import task_of

_FINISH_REASONS: Final[dict[v1.FinishReason, FinishReason]] = {
    v1.FinishReason.FINISH_REASON_STOP: "stop",
    v1.FinishReason.FINISH_REASON_LENGTH: "length",
}


@dataclass(frozen=True)
class Origin:
    """The origin of a response, shown in answers and errors.

    Attributes:
        request_id: identifies the request in the server's log.
        url: the server; empty if the transport has none.
        timeout: seconds that the request had; None if it had no limit.
    """

    request_id: str
    url: str
    timeout: float | None = None


def read_answer(request: v1.TaskRequest, response: v1.TaskResponse, origin: Origin) -> Answer:
    """The answer in a response.

    Raises:
        ServerError: no florence2 server sends such a response.
    """
    with located(origin.url or None, origin.request_id):
        return _read_answer(request, response, origin)


def read_error(error: v1.TaskError, origin: Origin) -> Florence2Error:
    """The error in a response or in an event."""
    found = error_of_status(error.status, error.message, origin.timeout)
    found.request_id, found.url = origin.request_id, origin.url or None
    return found


def read_step(step: v1.StepResponse, origin: Origin) -> StepAnswer:
    """The answer to a step, or its error.

    Raises:
        ServerError: no florence2 server sends such a response.
    """
    outcome: Answer | Florence2Error
    match step.WhichOneof("outcome"):
        case "response":
            outcome = read_answer(step.request, step.response, origin)
        case "error":
            outcome = read_error(step.error, origin)
        case _:
            raise ServerError("a step of the response has neither a response nor an error")
    return StepAnswer(step.request, outcome, step.item if step.HasField("item") else None)


def _read_answer(request: v1.TaskRequest, response: v1.TaskResponse, origin: Origin) -> Answer:
    image_size = (response.image_size.width, response.image_size.height)
    if min(image_size) < 1:
        raise ServerError(f"the response's image_size is {image_size}, expected at least 1 x 1 pixels")
    if response.finish_reason not in _FINISH_REASONS:
        raise ServerError(f"the response's finish_reason is {response.finish_reason}, which is unknown here")
    steps = [read_step(step, origin) for step in response.steps]
    token_scores = _token_scores(response)
    return Answer(
        result=_decoded(request, response, token_scores) if is_single_step(request) else _composed(request, steps),
        text=response.text,
        image_size=image_size,
        finish_reason=_FINISH_REASONS[response.finish_reason],
        usage=response.usage,
        token_scores=token_scores,
        request_id=origin.request_id,
        url=origin.url,
        steps=steps,
    )


def _token_scores(response: v1.TaskResponse) -> TokenScores | None:
    try:
        return TokenScores.of_response(response)
    except InvalidArgumentError as error:
        raise ServerError(f"the response's token scores are invalid: {error}") from error


def _decoded(request: v1.TaskRequest, response: v1.TaskResponse, token_scores: TokenScores | None) -> Result:
    try:
        return decode(task_of(request), response.text, response.image_size, token_scores)
    except InvalidArgumentError as error:
        raise ServerError(f"the response's token scores do not fit its text: {error}") from error


def _composed(request: v1.TaskRequest, steps: list[StepAnswer]) -> PlanResult:
    match request.WhichOneof("task"), steps:
        case "caption_grounding", [caption, grounding]:
            return _grounded_caption(caption, grounding)
        case "region_analysis", [detection, *regions]:
            return _region_analysis(detection, regions)
        case "task_list", _ if len(steps) == len(request.task_list.tasks):
            outcomes = [step.outcome for step in steps]
            return TaskResults([each.result if isinstance(each, Answer) else each for each in outcomes])
    raise ServerError(f"the response's {len(steps)} steps are not those of {request.WhichOneof('task')}")


def _grounded_caption(caption: StepAnswer, grounding: StepAnswer) -> GroundedCaption:
    text, detections = _result(caption, Text), _result(grounding, Detections)
    if text is None:
        raise _failed_first_step()
    return GroundedCaption(
        caption=text,
        detections=detections,
        error=_error(grounding),
        is_caption_truncated=_is_truncated(caption),
        is_grounding_truncated=_is_truncated(grounding),
    )


def _region_analysis(detection: StepAnswer, regions: list[StepAnswer]) -> RegionAnalysis:
    detections = _result(detection, Detections)
    if detections is None:
        raise _failed_first_step()
    analyzed = [_analyzed_region(detections, step) for step in regions]
    return RegionAnalysis(detections, analyzed, is_detection_truncated=_is_truncated(detection))


def _analyzed_region(detections: Detections, step: StepAnswer) -> AnalyzedRegion:
    if step.item is None or step.item not in range(len(detections)):
        raise ServerError(f"the response has a step about item {step.item} of {len(detections)} detections")
    is_outline = step.request.HasField("region_to_segmentation")
    return AnalyzedRegion(
        item=step.item,
        box=detections.boxes[step.item],
        label=detections.labels[step.item],
        result=_result(step, Segmentation) if is_outline else _result(step, Text),
        error=_error(step),
        is_truncated=_is_truncated(step),
    )


def _result(step: StepAnswer, result_type: type[ResultT]) -> ResultT | None:
    """The step's result; None if the step failed."""
    if not isinstance(step.outcome, Answer):
        return None
    result = step.outcome.result
    if not isinstance(result, result_type):
        raise ServerError(f"the response has a step with a result of type {type(result).__name__}")
    return result


def _error(step: StepAnswer) -> Florence2Error | None:
    return step.outcome if isinstance(step.outcome, Florence2Error) else None


def _is_truncated(step: StepAnswer) -> bool:
    return isinstance(step.outcome, Answer) and step.outcome.is_truncated


def _failed_first_step() -> ServerError:
    return ServerError("the response is that of a cascade whose first step failed, which has no response")
