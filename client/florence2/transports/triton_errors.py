"""Translates errors and cancellations of calls to Triton into those of this package."""

# tritonclient comes without types.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import grpc
from tritonclient.utils import InferenceServerException

from florence2.errors import Florence2Error, RequestCancelledError, UnavailableError, error_of_status


@contextlib.contextmanager
def own_errors(closing: threading.Event | asyncio.Event, timeout: float | None = None) -> Iterator[None]:
    """Raise the errors of gRPC and tritonclient as those of this package.

    Args:
        closing: set when the client is closed, which cancels its calls.
        timeout: seconds that the request had.
    """
    try:
        yield
    except InferenceServerException as error:
        # "StatusCode.UNAVAILABLE"; None for errors of tritonclient itself.
        status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
        raise _error_of_call(status, error.message() or "", closing, timeout) from error
    except grpc.RpcError as error:
        # Those of calls have a status, and there are no others.
        raise _error_of_call(error.code().name, error.details() or "", closing, timeout) from error


def _error_of_call(
    status: str, message: str, closing: threading.Event | asyncio.Event, timeout: float | None
) -> Florence2Error:
    if status == "CANCELLED" and not closing.is_set():
        # At the end of its shutdown, Triton cancels calls that arrive just then.
        return UnavailableError(f"the server cancelled the call: {message or status}")
    return error_of_status(status, message or status, timeout)


@contextlib.contextmanager
def own_cancellation() -> Iterator[None]:
    """Raise a `RequestCancelledError` if the channel was closed, and let cancellations by the caller pass."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RequestCancelledError("the client was closed while the request was in flight") from error


def require_open(closing: threading.Event | asyncio.Event) -> None:
    """Raise an error if the client was closed while the request waited for its next attempt."""
    if closing.is_set():
        raise RequestCancelledError("the client was closed while the request was in flight")
