"""How steps ended, and the response that they compose."""

from collections.abc import Container, Sequence
from typing import TypeAlias

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.messages import result_of, set_result
from florence2.parsing import decode
from florence2.results import Result
from florence2.scores import TokenScores
from florence2.tasks import task_of

Outcome: TypeAlias = v1.TaskResponse | v1.TaskError
"""How a step or a request ended."""


def with_result(request: v1.TaskRequest, outcome: Outcome) -> Outcome:
    """Decode a step's response, and set its result unless the request is raw.

    Args:
        request: a task or a prompt.
        outcome: the response, which is changed, or an error, which is returned.

    Returns:
        The response; an INTERNAL error if it cannot be decoded, because its size or its tokens are impossible.
    """
    if request.raw or isinstance(outcome, v1.TaskError) or outcome.WhichOneof("result"):
        return outcome
    result = _decoded(request, outcome)
    if isinstance(result, v1.TaskError):
        return result
    set_result(outcome, result)
    return outcome


def result_or_error(request: v1.TaskRequest, outcome: Outcome) -> Result | v1.TaskError:
    """The result of a step, decoded even if the request is raw; or the step's error."""
    if isinstance(outcome, v1.TaskError):
        return outcome
    result = result_of(outcome)
    return _decoded(request, outcome) if result is None else result


def _decoded(request: v1.TaskRequest, response: v1.TaskResponse) -> Result | v1.TaskError:
    try:
        return decode(task_of(request), response.text, response.image_size, TokenScores.of_response(response))
    except InvalidArgumentError as error:  # the engine's fault, not the caller's
        return v1.TaskError(status="INTERNAL", message=f"the generated text cannot be decoded: {error}")


def step_response(request: v1.TaskRequest, outcome: Outcome, item: int | None = None) -> v1.StepResponse:
    """The outcome of a step, or of a request of a task list."""
    if isinstance(outcome, v1.TaskError):
        return v1.StepResponse(request=request, item=item, error=outcome)
    return v1.StepResponse(request=request, item=item, response=outcome)


def joined(steps: Sequence[v1.StepResponse]) -> Outcome:
    """The response that consists of one or more steps; the first step's error if none has a response."""
    responses = [step.response for step in steps if step.HasField("response")]
    if not responses:
        return steps[0].error
    is_truncated = any(each.finish_reason == v1.FinishReason.FINISH_REASON_LENGTH for each in responses)
    reason = v1.FinishReason.FINISH_REASON_LENGTH if is_truncated else v1.FinishReason.FINISH_REASON_STOP
    return v1.TaskResponse(
        image_size=responses[0].image_size,
        finish_reason=reason,
        usage=_total_usage([response.usage for response in responses]),
        steps=steps,
    )


def _total_usage(usages: Sequence[v1.Usage]) -> v1.Usage:
    """The sum of all steps; the image embedding was cached if none of them encoded the image."""
    return v1.Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        generated_tokens=sum(usage.generated_tokens for usage in usages),
        queue_milliseconds=sum(usage.queue_milliseconds for usage in usages),
        encode_milliseconds=sum(usage.encode_milliseconds for usage in usages),
        decode_milliseconds=sum(usage.decode_milliseconds for usage in usages),
        image_embedding_cached=all(usage.image_embedding_cached for usage in usages),
    )


def located(error: v1.TaskError, path: str, fields: Container[str]) -> v1.TaskError:
    """The error of a step's request, with the full path of the field that it names in the caller's request.

    Args:
        error: an error of any status. Only INVALID_ARGUMENT names a field.
        path: where the step's request is in the caller's.
        fields: the fields of the step's request that the caller wrote there. Others, like the image, keep their names.
    """
    field = InvalidArgumentError.of_message(error.message).field if error.status == "INVALID_ARGUMENT" else None
    if field is None or field.split(".")[0] not in fields:
        return error
    return v1.TaskError(status=error.status, message=f"{path}.{error.message}")
