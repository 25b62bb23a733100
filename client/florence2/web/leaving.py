"""Cancels the requests of callers that close the connection before they have the answer."""

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.web.requests import facts_of, is_api

SEND_SECONDS: Final = 30.0
"""In which a caller must read a part of a response."""
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


class CancelWhenLeft:
    """Middleware that cancels the task of a request whose caller has closed the connection.

    Cancelling a call of `AsyncClient` cancels the request on the server. Routes need not watch the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. Return without a response if the caller has closed the connection."""
        if not is_api(scope):
            await self._app(scope, receive, send)
            return
        connection = _Connection(receive, send)
        work = asyncio.create_task(self._run(scope, connection))
        watch = asyncio.create_task(connection.watch())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not connection.is_answered:
                facts_of(scope)["has_left"] = True
                work.cancel()
            await asyncio.wait((work,))
        finally:
            watch.cancel()
            work.cancel()
            await asyncio.wait((work, watch))
        if not work.cancelled():
            work.result()

    async def _run(self, scope: Scope, connection: "_Connection") -> None:
        await self._app(scope, connection.receive, connection.send)


class _Connection:
    """A connection that is watched once the whole body is read; the app may wait for its end at the same time."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._has_body = asyncio.Event()
        self._has_ended = asyncio.Event()
        self.is_answered = False

    async def receive(self) -> Message:
        """What the app receives."""
        if self._has_body.is_set():
            await self._has_ended.wait()
            return _DISCONNECT
        message = await self._receive()
        if not message.get("more_body", False):
            self._has_body.set()
        return message

    async def send(self, message: Message) -> None:
        """What the app sends.

        Raises:
            ClientDisconnect: the caller does not read.
        """
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(message)
        except TimeoutError:
            # It would keep its place among the requests in work until it closes the connection.
            raise ClientDisconnect from None
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_answered = True

    async def watch(self) -> None:
        """Return when the caller has closed the connection, or the answer has been sent."""
        await self._has_body.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_ended.set()
