"""Calls of the engine's methods that are in flight, and how they end."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import grpc

from florence2_server.supervision.token_relay import DivergenceError, TokenRelay
from florence2_server.v1.engine_pb2 import GenerateResponse, GenerateStreamResponse

_logger = logging.getLogger(__name__)

# The names that types-grpcio gives them; grpc itself has none.
_Unary: TypeAlias = "grpc._CallFuture[GenerateResponse]"
_Stream: TypeAlias = "grpc._CallIterator[GenerateStreamResponse]"

# The status of a call that nobody cancelled if its connection breaks, or if the engine stops by itself.
_OF_A_LOST_ENGINE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class CallEnd:
    """How a call ended.

    Attributes:
        status: its gRPC status.
        details: what went wrong.
        response: the engine's response if the status is OK.
        has_lost_engine: whether its engine was lost, or the call was cancelled.
    """

    status: grpc.StatusCode
    details: str = ""
    response: GenerateResponse | None = None
    has_lost_engine: bool = False


class EngineCall(Protocol):
    """A call in flight."""

    def cancel(self) -> object:
        """Cancel the call; it ends soon."""

    def follow(self, on_end: Callable[[CallEnd], None]) -> None:
        """Have `on_end` called once when the call has ended, perhaps at once and perhaps on another thread."""


class UnaryCall:
    """A call of `Generate`.

    Args:
        call: the call.
    """

    def __init__(self, call: _Unary) -> None:
        self._call = call

    def cancel(self) -> None:
        """See `EngineCall.cancel`."""
        self._call.cancel()

    def follow(self, on_end: Callable[[CallEnd], None]) -> None:
        """See `EngineCall.follow`."""
        self._call.add_done_callback(lambda _: on_end(self._end()))

    def _end(self) -> CallEnd:
        if self._call.code() is grpc.StatusCode.OK:
            return CallEnd(grpc.StatusCode.OK, response=self._call.result())
        return _failure(self._call)


class StreamedCall:
    """A call of `GenerateStream`. A thread of its own reads it, because reading blocks.

    Args:
        call: the call.
        relay: passes the tokens on.
    """

    def __init__(self, call: _Stream, relay: TokenRelay) -> None:
        self._call = call
        self._relay = relay

    def cancel(self) -> None:
        """See `EngineCall.cancel`."""
        self._call.cancel()

    def follow(self, on_end: Callable[[CallEnd], None]) -> None:
        """See `EngineCall.follow`."""
        reader = threading.Thread(target=lambda: on_end(self._read()), name="tokens", daemon=True)
        try:
            reader.start()
        except RuntimeError as error:  # the process has reached its limit of threads
            self._call.cancel()
            on_end(CallEnd(grpc.StatusCode.UNAVAILABLE, f"the tokens cannot be read: {error}"))

    def _read(self) -> CallEnd:
        """Pass on all tokens. A call that is not read to its end is cancelled."""
        try:
            return self._pass_on()
        except grpc.RpcError as error:
            error.__traceback__ = None  # it is the call itself: its traceback would be a reference cycle
            return _failure(self._call)
        except DivergenceError:
            message = "the engine crashed, and the answer of the next one differs from what was already sent"
            end = CallEnd(grpc.StatusCode.UNAVAILABLE, message)
        except Exception as error:
            _logger.exception("passing on the tokens of a generation failed")
            end = CallEnd(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        self._call.cancel()
        return end

    def _pass_on(self) -> CallEnd:
        self._relay.restart()
        response = None
        for event in self._call:
            if event.HasField("tokens"):
                self._relay.receive(event.tokens)
            else:
                response = self._relay.complete(event.response)
        if response is None:
            return CallEnd(grpc.StatusCode.INTERNAL, "the engine gave no response")
        return CallEnd(grpc.StatusCode.OK, response=response)


def _failure(call: grpc.Call) -> CallEnd:
    status = call.code()
    details = call.details() or "the engine gave no reason"
    return CallEnd(status, details, has_lost_engine=status in _OF_A_LOST_ENGINE)
