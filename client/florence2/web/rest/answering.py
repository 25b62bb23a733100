"""Answering a call: as JSON, or as server-sent events."""

from collections.abc import AsyncIterator
from typing import Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from florence2.client import AsyncEventStream
from florence2.client.events import Event
from florence2.web.door import Door
from florence2.web.problems import problem_of
from florence2.web.requests import request_id_of
from florence2.web.rest.bodies import JSON_TYPE, read_body
from florence2.web.rest.calls import Call, call_of, named_as_fields
from florence2.web.rest.events import EventWriter, error_event
from florence2.web.rest.operations import Operation

EVENT_STREAM: Final = "text/event-stream"
_PING_SECONDS: Final = 15


async def answer(door: Door, operation: Operation, request: Request) -> Response:
    """The response to a request for an operation.

    Raises:
        Florence2Error: the request is invalid, or was not answered.
        HTTPException: the body has the wrong media type.
    """
    body = await read_body(request, operation)
    call = call_of(door, operation, body, request_id_of(request))
    is_stream = EVENT_STREAM in request.headers.get("accept", "") if call.is_stream is None else call.is_stream
    with named_as_fields(operation):
        if is_stream:
            return await _streamed(call, operation)
        answered = await call.client.run(call.image, call.request, **call.options)
        return Response(call.filters.apply(answered).to_json(), media_type=JSON_TYPE)


async def _streamed(call: Call, operation: Operation) -> Response:
    stream = call.client.stream(call.image, call.request, **call.options)
    try:
        first = await anext(stream)  # an error before it is a response with its own status
    except BaseException:
        await stream.close()
        raise
    events = _sent(call, operation, stream, first)
    return EventSourceResponse(events, ping=_PING_SECONDS, sep="\n", headers={"Cache-Control": "no-store"})


async def _sent(
    call: Call, operation: Operation, stream: AsyncEventStream, first: Event
) -> AsyncIterator[ServerSentEvent]:
    """The events of a stream whose first one has been read. Closing it cancels the request, also on the server."""
    writer = EventWriter(call.filters)
    async with stream:
        try:
            with named_as_fields(operation):
                for event in writer.write(first):
                    yield event
                async for following in stream:
                    for event in writer.write(following):
                        yield event
        except Exception as error:  # noqa: BLE001 - the status has been sent, so the error must be an event
            yield error_event(problem_of(error, call.options["request_id"]))
