"""Generations that the engine has not completed yet. They outlive engines: after a crash they are resubmitted."""

import bisect
import threading
from collections.abc import Callable
from concurrent.futures import Future

import grpc

from florence2_server.supervision.engine_call import EngineCall, StreamedCall, UnaryCall
from florence2_server.supervision.token_relay import TokenRelay
from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateRequest, GenerateResponse
from florence2_server.v1.engine_pb2_grpc import EngineServiceStub

# A generation that was in flight, among others, in this many crashes is resubmitted alone: if the engine crashes once
# more, the generation is the cause.
_CRASHES_AMONG_OTHERS = 2


class GenerationError(Exception):
    """A generation failed in the engine, or was rejected by the engine or its supervisor.

    Attributes:
        status: the gRPC status.
        is_culprit: whether the generation crashes the engine each time.
    """

    def __init__(self, status: grpc.StatusCode, message: str, *, is_culprit: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_culprit = is_culprit


class PendingGeneration:
    """A generation, from its submission to its completion.

    Args:
        request: what is sent to the engine.
        describe: identifies the request in a log, in case it crashes the engine.
        on_tokens: called with the next tokens as they become certain, in order and each once, on a thread without
            locks, before the completion ends; perhaps once more after `cancel`. Without it, the engine sends none.

    Attributes:
        number: its place in the order of arrival; set by the queue.
        completion: ends once: with the engine's response, with a GenerationError, or cancelled.
        crashes: the number of crashes of the engine while the generation was in flight.
    """

    def __init__(
        self,
        request: GenerateRequest,
        describe: Callable[[], str],
        on_tokens: Callable[[GeneratedTokens], None] | None = None,
    ) -> None:
        self.request = request
        self.describe = describe
        self.number = 0
        self.completion: Future[GenerateResponse] = Future()
        self.crashes = 0
        self._lock = threading.Lock()
        self._call: EngineCall | None = None
        self._relay = None if on_tokens is None else TokenRelay(on_tokens)

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what crashes the engine, and has to be in flight alone."""
        return self.crashes >= _CRASHES_AMONG_OTHERS

    def call(self, stub: EngineServiceStub) -> EngineCall:
        """Send the request to an engine. The call has yet to be attached and followed."""
        if self._relay is None:
            return UnaryCall(stub.Generate.future(self.request))
        return StreamedCall(stub.GenerateStream(self.request), self._relay)

    def attach(self, call: EngineCall) -> None:
        """Tie the generation to the call that is in flight for it, which `cancel` cancels too."""
        with self._lock:
            self._call = call
        if self.completion.cancelled():
            call.cancel()

    def cancel(self) -> None:
        """Cancel the generation: its completion is not needed any more."""
        self.completion.cancel()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    def succeed(self, response: GenerateResponse) -> None:
        """End with the engine's response."""
        if self.completion.set_running_or_notify_cancel():
            self.completion.set_result(response)

    def fail(self, status: grpc.StatusCode, message: str, *, is_culprit: bool = False) -> None:
        """End with a GenerationError."""
        if self.completion.set_running_or_notify_cancel():
            self.completion.set_exception(GenerationError(status, message, is_culprit=is_culprit))


class GenerationQueue:
    """The pending generations of a supervisor: those that wait, in the order of arrival, and those in flight.

    Not thread-safe: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._accepted = 0
        self._waiting: list[PendingGeneration] = []
        self._in_flight: set[PendingGeneration] = set()

    @property
    def is_any_in_flight(self) -> bool:
        """Whether a generation is in flight."""
        return bool(self._in_flight)

    def add(self, generation: PendingGeneration) -> None:
        """Append a new generation to those that wait, from which cancelled ones are removed.

        While an engine starts, generations may be added and cancelled without end, each with its image.
        """
        self._waiting = [waiting for waiting in self._waiting if not waiting.completion.cancelled()]
        self._accepted += 1
        generation.number = self._accepted
        self._waiting.append(generation)

    def launch(self) -> PendingGeneration | None:
        """Put the next generation in flight. None if none waits, or if it or one in flight is a suspect."""
        while self._waiting:
            generation = self._waiting[0]
            if self._in_flight and (generation.is_suspect or any(other.is_suspect for other in self._in_flight)):
                return None
            del self._waiting[0]
            if not generation.completion.cancelled():
                self._in_flight.add(generation)
                return generation
        return None

    def land(self, generation: PendingGeneration) -> None:
        """Remove a generation from those in flight."""
        self._in_flight.discard(generation)

    def requeue(self, generation: PendingGeneration) -> None:
        """Insert a generation that was in flight in a crash before those that arrived later."""
        generation.crashes += 1
        bisect.insort(self._waiting, generation, key=lambda waiting: waiting.number)

    def clear(self) -> list[PendingGeneration]:
        """Remove the generations that wait, and return them."""
        waiting, self._waiting = self._waiting, []
        return waiting
