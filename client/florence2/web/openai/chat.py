"""`POST /v1/chat/completions`."""

from http import HTTPStatus
from typing import Any, cast

from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from florence2.client.events import AsyncEventStream, Event
from florence2.options import CallOptions, RunOptions
from florence2.plain_data import json_text
from florence2.web.door import Door
from florence2.web.openai.chat_request import read_chat
from florence2.web.openai.chunks import Chunks
from florence2.web.openai.completions import Completion
from florence2.web.openai.served_models import ServedModels
from florence2.web.requests import facts_of, request_id_of
from florence2.web.rest.bodies import BODY_FIELD, JSON_TYPE, whole_body
from florence2.web.rest.fields import parsed_json


class ChatCompletions:
    """Answers chats.

    Args:
        door: settings and models.
        served: what is known of the checkpoints.
    """

    def __init__(self, door: Door, served: ServedModels) -> None:
        self._door = door
        self._served = served

    async def create(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        chat = read_chat(await _json_body(request), self._door.models.names)
        fingerprint = self._served.fingerprint(chat.model.model)
        completion = Completion(request_id_of(request), str(chat.model), fingerprint)
        chunks = Chunks(chat, completion, facts_of(request.scope))
        client = self._door.models.client(chat.model.model)
        with chat.names.in_errors():
            options = cast(RunOptions, {**chat.options, "request_id": completion.request_id})
            options["timeout"] = self._door.timeout(chat.options.get("timeout"))
            image = await self._door.image(chat.image.data)
            if chat.is_stream and chat.is_text:
                stream = client.stream(image, chat.request, **cast(CallOptions, options))
                # A failure before the first event has the status of an error.
                return EventSourceResponse(chunks.of_text(await _first(stream), stream))
            answer = await client.run(image, chat.request, **options)
        if chat.is_stream:
            return EventSourceResponse(chunks.of_answer(answer))
        return Response(json_text(completion.whole(answer)), media_type=JSON_TYPE)


async def _first(stream: AsyncEventStream) -> Event:
    """The first event of a stream. If reading it fails, the stream is closed."""
    try:
        return await anext(stream)
    except BaseException:
        await stream.close()
        raise


async def _json_body(request: Request) -> Any:
    """The JSON value of a body.

    Raises:
        HTTPException: the content type is not JSON.
        InvalidArgumentError: it is not JSON.
    """
    # Other types need no preflight request: any website's script could send them to a server on the user's machine.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: expected {JSON_TYPE}")
    return parsed_json(BODY_FIELD, await whole_body(request))
