"""The MCP server over HTTP ("streamable HTTP"), behind the checks of the web server."""

from typing import Any, Final

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from florence2.errors import InvalidArgumentError
from florence2.web.access_log import AccessLog
from florence2.web.config import WebConfig
from florence2.web.failures import Failures
from florence2.web.headers import OwnRequests, SecurityHeaders
from florence2.web.keys import ApiKeys, RequireKey
from florence2.web.limits import BodyLimits, Concurrency
from florence2.web.problems import Problem
from florence2.web.requests import MCP_PATH, facts_of

_IDLE_SECONDS: Final = 600.0
_SESSIONS: Final = 1000
# The web server's own middleware checks hosts and origins.
_CHECKED_BEFORE: Final = TransportSecuritySettings(enable_dns_rebinding_protection=False)


def http_app(server: Server[Any], config: WebConfig) -> Starlette:
    """The ASGI app. It creates the client when it starts, and closes it when it stops.

    Args:
        server: the MCP server; it can have only one app.
        config: settings of the web server. There is no CORS: requests of websites' scripts are refused.

    Raises:
        InvalidArgumentError: other machines could connect without a key, or the file of keys is invalid.
        OSError: the file of keys cannot be read.
    """
    if not config.is_local and config.api_keys is None:
        raise InvalidArgumentError.of_field("--host", config.host, "a loopback address, unless --api-keys is given")
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=config.max_body_bytes,
        session_idle_timeout=_IDLE_SECONDS,
        max_sessions=_SESSIONS,
        transport_security=_CHECKED_BEFORE,
    )
    app.add_exception_handler(HTTPException, _passed_on)
    for each in reversed(_middleware(config)):
        app.add_middleware(each.cls, *each.args, **each.kwargs)
    return app


def _middleware(config: WebConfig) -> list[Middleware]:
    """The middleware, outermost first."""
    keys = None if config.api_keys is None else ApiKeys(config.api_keys)
    return [
        Middleware(AccessLog),
        Middleware(SecurityHeaders),
        Middleware(Failures, respond=_response),
        Middleware(OwnRequests, config=config),
        Middleware(RequireKey, keys=keys),
        Middleware(Concurrency, most=config.concurrency),
        Middleware(BodyLimits, config=config),
        Middleware(_SessionOwner),
    ]


class _SessionOwner:
    """Middleware that passes the name of a request's key to the SDK: only the key that opened a session can use it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = facts_of(scope).get("key") if scope["type"] == "http" else None
        if name is not None:
            scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=name, scopes=[]))
        await self._app(scope, receive, send)


def _response(path: str, problem: Problem) -> Response:  # noqa: ARG001
    return problem.response()


async def _passed_on(request: Request, error: Exception) -> Response:  # noqa: ARG001
    # Passed on to `Failures`, instead of Starlette's own response in plain text.
    raise error
