"""Turns any error of a request into a response."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.errors import InvalidArgumentError, UnavailableError
from florence2.web.problems import Problem, problem_of
from florence2.web.requests import facts_of, scope_id

_LOG: Final = logging.getLogger("florence2.web")
_DISCARD_SECONDS: Final = 2.0
_DISCARD_BYTES: Final = 64 * 1024 * 1024
_SHOWN_CHARACTERS: Final = 500


class Failures:
    """Middleware that turns each error into a response.

    Args:
        app: the app behind it.
        respond: returns the response for a request's path and its problem.
    """

    def __init__(self, app: ASGIApp, respond: Callable[[str, Problem], Response]) -> None:
        self._app = app
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and respond to it if that fails."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            facts_of(scope)["has_left"] = True
        except asyncio.CancelledError:
            # Raised by uvicorn in requests that are still in flight after the time for stopping.
            await self._answer(scope, exchange, UnavailableError("the web server is stopping"))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller needs a response
            await self._answer(scope, exchange, error)

    async def _answer(self, scope: Scope, exchange: "_Exchange", error: Exception) -> None:
        problem = problem_of(error, scope_id(scope))
        facts_of(scope)["error"] = logged_error(error)
        if exchange.has_response:
            # The status has been sent: the caller can only notice that the connection breaks.
            _LOG.warning("request %s failed after its response had begun: %r", scope_id(scope), error)
            return
        if "Connection" not in problem.headers and not await exchange.discard_body(scope):
            problem = replace(problem, headers={**problem.headers, "Connection": "close"})
        await self._respond(scope["path"], problem)(scope, exchange.receive, exchange.send)


def logged_error(error: Exception) -> str:
    """An error for the log, without what the caller wrote."""
    if isinstance(error, InvalidArgumentError):
        name = f"{type(error).__name__}: {error.field}" if error.field else type(error).__name__
        return name[:_SHOWN_CHARACTERS]
    return f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]


class _Exchange:
    """What was received and sent so far."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._has_body = False
        self.has_response = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._has_body = self._has_body or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self.has_response = True
        await self._send(message)

    async def discard_body(self, scope: Scope) -> bool:
        """Receive the rest of a body, because many clients do not read a response before they have sent it all.

        Returns:
            Whether it has been received. If not, the connection must be closed.
        """
        headers = Headers(scope=scope)
        if self._has_body or not {"content-length", "transfer-encoding"} & set(headers):
            return True
        if "expect" in headers:  # 100-continue: the client waits for permission, which receiving would give
            return False
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while not self._has_body and size < _DISCARD_BYTES:
                    size += len((await self.receive()).get("body", b""))
        return self._has_body
