"""gRPC's statuses as this package's errors."""

# tritonclient comes without types.
# mypy: disable-error-code="no-untyped-call"

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tritonclient.utils import InferenceServerException

from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    Florence2Error,
    InvalidArgumentError,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)

# Every other status is a ServerError: a fault of the server (INTERNAL, UNKNOWN), or of how
# it is set up (UNIMPLEMENTED), which no other request mends.
_ERRORS: dict[str, type[Florence2Error]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": RequestCancelledError,
    "NOT_FOUND": ModelNotFoundError,
    "UNAUTHENTICATED": AccessDeniedError,
    "PERMISSION_DENIED": AccessDeniedError,
}
# Where a status says less than its message: how gRPC words it, and Triton.
_ERRORS_BY_MESSAGE: dict[tuple[str, str], type[Florence2Error]] = {
    ("RESOURCE_EXHAUSTED", "larger than max"): MessageTooLargeError,
    ("UNAVAILABLE", "This protocol is restricted"): AccessDeniedError,
    ("NOT_FOUND", "has no available versions"): UnavailableError,  # while the server loads the model, or ends
    # Triton refuses all requests that it hands over together when one has a string whose length is a lie. No client
    # that is built on tritonclient writes one, so it was another caller's; alone, or beside others, this one is fine.
    ("INVALID_ARGUMENT", "incomplete string data for inference input"): UnavailableError,
}


@contextmanager
def own_errors(timeout: float | None = None) -> Iterator[None]:
    """Raise what tritonclient raises as an error of this package.

    Args:
        timeout: seconds that the call was given.
    """
    try:
        yield
    except InferenceServerException as error:
        # "StatusCode.UNAVAILABLE"; None where tritonclient itself is the one that objects.
        status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
        message = error.message() or status
        for (of_status, words), error_type in _ERRORS_BY_MESSAGE.items():
            if status == of_status and words in message:
                raise error_type(message) from error
        if status == "INVALID_ARGUMENT":
            raise InvalidArgumentError.of_message(message) from error
        if status == "DEADLINE_EXCEEDED" and timeout is not None:
            raise DeadlineExceededError(f"no answer within {timeout:g} s: {message}") from error
        if status not in _ERRORS:
            raise ServerError(f"{status}: {message}") from error
        raise _ERRORS[status](message) from error


@contextmanager
def own_cancellation() -> Iterator[None]:
    """Tell the caller's cancellation, which goes on its way, from a channel that was closed under the call."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RequestCancelledError("the client was closed while the call was in flight") from error
