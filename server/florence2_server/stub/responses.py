"""The responses to steps, from what the engine generated for them."""

from concurrent.futures import Future

import grpc
from florence2.plans import Outcome
from florence2.v1 import TaskError, TaskResponse

from florence2_server.supervision.pending_generation import GenerationError
from florence2_server.v1.engine_pb2 import GenerateResponse


def step_response(generated: GenerateResponse) -> TaskResponse:
    """The response to a step, without its result: the plan decodes it."""
    return TaskResponse(
        text=generated.text,
        image_size=generated.image_size,
        finish_reason=generated.finish_reason,
        usage=generated.usage,
        token_log_probabilities=generated.token_log_probabilities,
        token_masses=generated.token_masses,
        token_ends=generated.token_ends,
    )


def step_outcome(completion: "Future[GenerateResponse]") -> Outcome:
    """How a step ended whose generation has ended.

    The completion's exception is not raised: its traceback would be a reference cycle with the completion.
    """
    if completion.cancelled():
        return task_error(grpc.StatusCode.CANCELLED, "the generation was cancelled")
    error = completion.exception()
    if isinstance(error, GenerationError):
        return task_error(error.status, str(error))
    if error is not None:
        return task_error(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
    return step_response(completion.result())


def task_error(status: grpc.StatusCode, message: str) -> TaskError:
    """The error of a step or a request."""
    return TaskError(status=status.name, message=message)
