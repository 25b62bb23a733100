"""Turns the messages of a stream into typed events."""

from collections.abc import Iterator

from florence2 import v1
from florence2.client.events import Event, Finished, ItemFound, StepFinished, StepStarted, TextDelta
from florence2.client.reading import Origin, read_answer, read_error, read_step
from florence2.errors import ServerError, located
from florence2.messages import from_message
from florence2.results import Detections, TextRegions
from florence2.transports.protocol import RequestContext, StreamReply


class EventReader:
    """Reads the events of one request.

    Attributes:
        is_finished: whether the last event was read.
    """

    def __init__(self, request: v1.TaskRequest, context: RequestContext) -> None:
        self._request = request
        self._context = context
        self.is_finished = False

    def read(self, reply: StreamReply) -> Iterator[Event]:
        """The event in a message; nothing if only newer clients know its kind.

        Raises:
            Florence2Error: the request failed.
            ServerError: no florence2 server sends such an event.
        """
        with located(reply.url or None, self._context.request_id):
            yield from self._read(reply.event, Origin(self._context.request_id, reply.url, self._context.timeout))

    def check_finished(self) -> None:
        """Raise a ServerError if the stream ended early."""
        if not self.is_finished:
            raise ServerError("the stream ended without a response")

    def _read(self, event: v1.StreamEvent, origin: Origin) -> Iterator[Event]:
        match event.WhichOneof("event"):
            case "step_started":
                started = event.step_started
                item = started.item if started.HasField("item") else None
                yield StepStarted(event.step, started.request, item)
            case "text_delta":
                yield TextDelta(event.step, event.text_delta)
            case "detection":
                yield _found(event.step, v1.Detections(detections=[event.detection]))
            case "text_region":
                yield _found(event.step, v1.TextRegions(text_regions=[event.text_region]))
            case "step_response":
                yield StepFinished(event.step, read_step(event.step_response, origin))
            case "response":
                self.is_finished = True
                yield Finished(read_answer(self._request, event.response, origin))
            case "error":
                raise read_error(event.error, origin)


def _found(step: int, message: v1.Detections | v1.TextRegions) -> ItemFound:
    result = from_message(message)
    assert isinstance(result, Detections | TextRegions), "the result of the same name"
    return ItemFound(step, result[0])
