"""Sends the answer to a request: one response, or a stream of events."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

import grpc
from florence2.plan_events import PlannedStepEvents, last_event
from florence2.plans import Outcome, Step
from florence2.v1 import StreamEvent, TaskResponse

from florence2_server.stub.incoming import IncomingRequest
from florence2_server.stub.responses import task_error
from florence2_server.stub.wire import Encoding, serialize
from florence2_server.v1.engine_pb2 import GeneratedTokens


class Answer(ABC):
    """The answer to one request. `succeed` or `fail` is called once."""

    @abstractmethod
    def serialized(self, responses: Sequence[tuple[TaskResponse, Encoding]]) -> list[bytes]:
        """What `succeed` sends: the response to each batch element."""

    @abstractmethod
    def succeed(self, data: Sequence[bytes]) -> None:
        """Send the response.

        Raises:
            NoRoomError: there is no room for it; `fail` can still be called.
        """

    @abstractmethod
    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """Send an error."""

    @abstractmethod
    def emitter(self, step: Step, *, is_single: bool) -> "StepEmitter | None":
        """The emitter of events of a step that starts now; None if nothing is sent before the whole response.

        Args:
            step: the step.
            is_single: whether the step is the whole request.
        """


class UnaryAnswer(Answer):
    """One response with all batch elements, or an error.

    Args:
        incoming: the request.
    """

    def __init__(self, incoming: IncomingRequest) -> None:
        self._incoming = incoming

    def serialized(self, responses: Sequence[tuple[TaskResponse, Encoding]]) -> list[bytes]:
        """See `Answer.serialized`."""
        return [serialize(response, encoding) for response, encoding in responses]

    def succeed(self, data: Sequence[bytes]) -> None:
        """See `Answer.succeed`."""
        self._incoming.respond(data)

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """See `Answer.fail`."""
        self._incoming.fail(status, message)

    def emitter(self, step: Step, *, is_single: bool) -> None:
        """See `Answer.emitter`."""


class StreamedAnswer(Answer):
    """Events, the last of which is the response or the error. The request has one batch element.

    Args:
        incoming: the request.
        encoding: of the request, and so of the events.
    """

    def __init__(self, incoming: IncomingRequest, encoding: Encoding) -> None:
        self._incoming = incoming
        self._encoding = encoding
        self._lock = threading.Lock()  # orders the events of steps that run at the same time
        self._has_ended = False

    def serialized(self, responses: Sequence[tuple[TaskResponse, Encoding]]) -> list[bytes]:
        """See `Answer.serialized`."""
        return [serialize(last_event(response), encoding) for response, encoding in responses]

    def succeed(self, data: Sequence[bytes]) -> None:
        """See `Answer.succeed`."""
        (event,) = data
        self._end(event)

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """See `Answer.fail`."""
        self._end(serialize(last_event(task_error(status, message)), self._encoding))

    def emitter(self, step: Step, *, is_single: bool) -> "StepEmitter":
        """See `Answer.emitter`."""
        return StepEmitter(self, step, is_single=is_single)

    def emit(self, event: StreamEvent) -> None:
        """Send an event, unless the stream has ended."""
        data = serialize(event, self._encoding)
        with self._lock:
            if not self._has_ended:
                self._incoming.emit(data)

    def _end(self, event: bytes) -> None:
        with self._lock:
            self._has_ended = True
            self._incoming.emit(event)
            self._incoming.end()


class StepEmitter:
    """Emits the events of one step, from its start on.

    Args:
        answer: sends the events.
        step: the step.
        is_single: whether the step is the whole request.
    """

    def __init__(self, answer: StreamedAnswer, step: Step, *, is_single: bool) -> None:
        self._answer = answer
        self._events = PlannedStepEvents(step, is_single=is_single)
        self._emit(self._events.start())

    def on_tokens(self, tokens: GeneratedTokens) -> None:
        """The engine has generated more tokens."""
        self._emit(
            self._events.feed(
                tokens.text,
                tokens.token_log_probabilities,
                tokens.token_ends,
                tokens.image_size,
                tokens.token_masses,
            )
        )

    def finish(self, outcome: Outcome) -> None:
        """The step has ended."""
        self._emit(self._events.finish(outcome))

    def _emit(self, events: Sequence[StreamEvent]) -> None:
        for event in events:
            self._answer.emit(event)
