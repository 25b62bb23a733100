"""Answering a call: as JSON, or as server-sent events."""

from collections.abc import AsyncIterator
from typing import Any, Final

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from florence2.client import AsyncEventStream
from florence2.client.events import Event
from florence2.plain_data import json_text
from florence2.web.door import Door
from florence2.web.failures import logged_error
from florence2.web.problems import problem_of
from florence2.web.requests import facts_of, request_id_of
from florence2.web.rest.answer_data import answer_data
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
    call = await call_of(door, operation, await read_body(request, operation), request_id_of(request))
    is_stream = EVENT_STREAM in request.headers.get("accept", "") if call.is_stream is None else call.is_stream
    with named_as_fields(operation):
        if is_stream:
            return await _streamed(call, operation, facts_of(request.scope))
        answered = await call.client.run(call.image, call.request, **call.options)
        return Response(json_text(answer_data(call.filters.apply(answered))), media_type=JSON_TYPE)


async def _streamed(call: Call, operation: Operation, facts: dict[str, Any]) -> Response:
    stream = call.client.stream(call.image, call.request, **call.options)
    try:
        first = await anext(stream)  # an error before it is a response with its own status
    except BaseException:
        await stream.close()
        raise
    events = _sent(call, operation, stream, first, facts)
    return EventSourceResponse(events, ping=_PING_SECONDS, sep="\n", headers={"Cache-Control": "no-store"})


async def _sent(
    call: Call, operation: Operation, stream: AsyncEventStream, first: Event, facts: dict[str, Any]
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
            facts["error"] = logged_error(error)  # the status in the access log is 200
            yield error_event(problem_of(error, call.options["request_id"]))
