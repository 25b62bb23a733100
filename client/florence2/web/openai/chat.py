"""`POST /v1/chat/completions`."""

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, cast

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from florence2.options import CallOptions, RunOptions
from florence2.plain_data import json_text
from florence2.web.door import Door
from florence2.web.openai.chat_request import ChatRequest, read_chat
from florence2.web.openai.chunks import Chunks
from florence2.web.openai.completions import Completion
from florence2.web.openai.leaving import unless_left
from florence2.web.openai.served_models import ServedModels
from florence2.web.requests import request_id_of
from florence2.web.rest.bodies import BODY_FIELD, JSON_TYPE
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
        with chat.names.in_errors():
            options = cast(RunOptions, {**chat.options, "request_id": completion.request_id})
            options["timeout"] = self._door.timeout(chat.options.get("timeout"))
            image = await asyncio.to_thread(self._door.image, chat.image.data)
            if chat.is_stream and chat.is_text:
                return await self._streamed(request, chat, image, Chunks(chat, completion), options)
            client = self._door.models.client(chat.model.model)
            answer = await unless_left(request, client.run(image, chat.request, **options))
        if chat.is_stream:
            return self._event_source(Chunks(chat, completion).of_answer(answer))
        return Response(json_text(completion.whole(answer)), media_type=JSON_TYPE)

    async def _streamed(
        self, request: Request, chat: ChatRequest, image: bytes, chunks: Chunks, options: CallOptions
    ) -> Response:
        """A text while it is generated. What fails before its first piece has the status of an error."""
        stream = self._door.models.client(chat.model.model).stream(image, chat.request, **options)
        try:
            first = await unless_left(request, anext(stream))
        except BaseException:
            await stream.close()
            raise
        return self._event_source(chunks.of_text(first, stream))

    def _event_source(self, events: AsyncGenerator[ServerSentEvent, None]) -> Response:
        # Without the grace period, streams would be cut as soon as the server is told to stop.
        return EventSourceResponse(events, shutdown_grace_period=self._door.config.drain)


async def _json_body(request: Request) -> Any:
    """The JSON value of a body.

    Raises:
        HTTPException: the content type is another.
        InvalidArgumentError: it is not JSON.
    """
    # A script of another website can send any other type to a server on the user's own machine without permission.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: expected {JSON_TYPE}")
    return parsed_json(BODY_FIELD, await request.body())
