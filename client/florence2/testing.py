"""Tests of programs that use a client, without a server.

>>> import florence2
>>> from florence2.testing import MockTransport, task_response
>>> def respond(image, request):
...     assert request.WhichOneof("task") == "object_detection"
...     return task_response("dog<loc_100><loc_200><loc_300><loc_400>", image_size=(1000, 500))
>>> with florence2.Client(transport=MockTransport(respond)) as client:
...     found = client.detect(b"an image file")
>>> found.labels, found.boxes.tolist()
(['dog'], [[100.5, 100.25, 300.5, 200.25]])
"""

import codecs
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias

from florence2 import v1
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    Florence2Error,
    InvalidArgumentError,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestCancelledError,
    UnavailableError,
    error_of_status,
)
from florence2.plan_events import PlannedStepEvents, last_event
from florence2.plans import Outcome, PlanRun, Step, is_single_step, with_result
from florence2.transports.protocol import EngineInfo, Health, Reply, RequestContext, ServerInfo, StreamReply

Handler: TypeAlias = Callable[[bytes, v1.TaskRequest], v1.TaskResponse]
"""Returns the response to an encoded image and a checked task or prompt, or raises an error of `florence2.errors`."""

_STATUSES: Final[tuple[tuple[type[Florence2Error], str], ...]] = (
    (InvalidArgumentError, "INVALID_ARGUMENT"),
    (UnavailableError, "UNAVAILABLE"),
    (DeadlineExceededError, "DEADLINE_EXCEEDED"),
    (RequestCancelledError, "CANCELLED"),
    (MessageTooLargeError, "RESOURCE_EXHAUSTED"),
    (ModelNotFoundError, "NOT_FOUND"),
    (AccessDeniedError, "PERMISSION_DENIED"),
    (Florence2Error, "INTERNAL"),
)
_PIECES: Final = 4


class MockTransport:
    """A transport for both clients that passes each request to a function.

    The steps of a cascade, and the requests of a task list, are passed to it one after the other, as a server runs
    them: the second step of a cascade depends on the response to the first. An error that it raises for one of them is
    that step's error. In a stream, the text of each response comes in a few pieces.

    Args:
        handler: called with the image, as the client would send it, and a task or a prompt.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def infer(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:  # noqa: ARG002
        """Return the handler's response, or the one that its responses to all steps compose."""
        if is_single_step(request):
            return Reply(self._handler(image, request))
        (*_, last) = self._events(image, request)
        if last.HasField("error"):
            raise error_of_status(last.error.status, last.error.message)
        return Reply(last.response)

    async def infer_async(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """As `infer`."""
        return self.infer(image, request, context)

    def stream(
        self,
        image: bytes,
        request: v1.TaskRequest,
        context: RequestContext,  # noqa: ARG002
    ) -> Generator[StreamReply, None, None]:
        """Yield the events of the handler's response, or of its responses to all steps."""
        for event in self._events(image, request):
            yield StreamReply(event)

    async def stream_async(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> AsyncGenerator[StreamReply, None]:
        """As `stream`."""
        for reply in self.stream(image, request, context):
            yield reply

    def _events(self, image: bytes, request: v1.TaskRequest) -> Iterator[v1.StreamEvent]:
        plan = PlanRun(request)
        steps = plan.start()
        while steps:
            step = steps.pop(0)
            events = PlannedStepEvents(step, is_single=is_single_step(request))
            yield from events.start()
            outcome = self._outcome(image, step)
            if isinstance(outcome, v1.TaskResponse):
                for piece in _pieces(step.request, outcome):
                    yield from events.feed(
                        piece.text, piece.log_probabilities, piece.ends, outcome.image_size, piece.masses
                    )
            yield from events.finish(outcome)
            steps += plan.complete(step.number, outcome)
        assert plan.result is not None, "all steps have ended"
        yield last_event(plan.result)

    def _outcome(self, image: bytes, step: Step) -> Outcome:
        try:
            response = self._handler(image, step.request)
        except Florence2Error as error:
            status = next(status for kind, status in _STATUSES if isinstance(error, kind))
            return v1.TaskError(status=status, message=str(error))
        own = v1.TaskResponse()  # the handler may return the same message again
        own.CopyFrom(response)
        return with_result(step.request, own)

    def is_ready(self, timeout: float | None) -> bool:  # noqa: ARG002
        """Always true."""
        return True

    async def is_ready_async(self, timeout: float | None) -> bool:
        """Always true."""
        return self.is_ready(timeout)

    def health(self, timeout: float) -> list[Health]:  # noqa: ARG002
        """One server in perfect health."""
        return [Health("", server_is_live=True, model_is_ready=True, engine="running")]

    async def health_async(self, timeout: float) -> list[Health]:
        """One server in perfect health."""
        return self.health(timeout)

    def server_info(self, timeout: float) -> list[ServerInfo]:  # noqa: ARG002
        """One server with one engine, which runs and serves no checkpoint."""
        return [ServerInfo(url="", version="", model="florence2", engines=(EngineInfo("0", "running"),))]

    async def server_info_async(self, timeout: float) -> list[ServerInfo]:
        """As `server_info`."""
        return self.server_info(timeout)

    def close(self) -> None:
        """Do nothing."""

    async def close_async(self) -> None:
        """Do nothing."""


def task_response(
    text: str, image_size: tuple[int, int] = (640, 480), *, is_truncated: bool = False
) -> v1.TaskResponse:
    """A response with a generated text.

    Args:
        text: as the model would write it, e.g. `"A dog."` or `"dog<loc_100><loc_200><loc_300><loc_400>"`, where
            `<loc_0>` to `<loc_999>` span the image's width or height.
        image_size: width and height of the image as displayed, in pixels.
        is_truncated: whether the answer ends at its length limit.
    """
    finish_reason = v1.FinishReason.FINISH_REASON_LENGTH if is_truncated else v1.FinishReason.FINISH_REASON_STOP
    width, height = image_size
    return v1.TaskResponse(text=text, image_size=v1.ImageSize(width=width, height=height), finish_reason=finish_reason)


class _Piece(NamedTuple):
    """A piece of a response's text, with what is known of its tokens."""

    text: str
    log_probabilities: Sequence[float] = ()
    ends: Sequence[int] = ()
    masses: Sequence[float] = ()


def _pieces(request: v1.TaskRequest, response: v1.TaskResponse) -> Iterator[_Piece]:
    """The text of a response in a few pieces, with the ends and scores of their tokens if it has any."""
    text, ends = response.text, response.token_ends
    if request.raw or not ends:
        for first, last in _ranges(len(text)):
            yield _Piece(text[first:last])
        return
    decoder, encoded, start = codecs.getincrementaldecoder("utf-8")(), text.encode(), 0
    for first, last in _ranges(len(ends)):
        end, tokens = ends[last - 1], slice(first, last)
        yield _Piece(
            decoder.decode(encoded[start:end]),
            response.token_log_probabilities[tokens],
            ends[tokens],
            response.token_masses[tokens],
        )
        start = end


def _ranges(length: int) -> Iterator[tuple[int, int]]:
    """A few ranges that cover a length."""
    size = -(-length // _PIECES) or 1
    return pairwise([*range(0, length, size), length])
