"""What the stub answers: a request as it arrives, whichever Triton model it was sent to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import grpc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NoRoomError(Exception):
    """There is no room for a response in the memory shared with tritonserver. Nothing was sent."""


class IncomingRequest(Protocol):
    """A request with one or several batch elements. It has to be answered once: by `respond` or `fail`, or by `end`."""

    @property
    def request_id(self) -> str:
        """The caller's name for the request; may be empty."""

    @property
    def traceparent(self) -> str:
        """The caller's W3C trace context; may be empty."""

    @property
    def queue_timeout(self) -> float | None:
        """The caller's Triton timeout: seconds that the request may wait; None for no limit."""

    @property
    def is_streamed(self) -> bool:
        """Whether the answer consists of events, or of one response."""

    def input(self, name: str) -> "NDArray[np.object_]":
        """The elements of the input IMAGE or REQUEST, in the shape that the caller sent. Each can be read once."""

    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the request. It may take a round-trip to tritonserver."""

    def respond(self, elements: Sequence[bytes]) -> None:
        """Send the response: one RESPONSE for each batch element.

        Raises:
            NoRoomError: the memory shared with tritonserver is full; an error can still be sent.
        """

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """Send an error."""

    def emit(self, event: bytes) -> None:
        """Send an event of a streamed answer. Not thread-safe."""

    def end(self) -> None:
        """End a streamed answer. Not thread-safe."""
