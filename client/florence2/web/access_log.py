"""The outermost middleware: the request's id, its trace, and its line in the access log."""

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.transports.tracing import continued_trace
from florence2.web.problems import CLIENT_CLOSED_REQUEST
from florence2.web.requests import facts_of, scope_id

ACCESS_LOG: Final = "florence2.web.access"
_LOG: Final = logging.getLogger(ACCESS_LOG)
_PROBES: Final = ("/live", "/ready")
_MOST_PATH: Final = 200
_DECIMALS: Final = 4


class AccessLog:
    """Middleware that gives each request an id, continues the caller's trace, and logs how the request ended.

    A line is a JSON object. Queries, bodies and API keys are never logged, and neither are successful probes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, started = scope_id(scope), time.perf_counter()
        status = None

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            with continued_trace(dict(Headers(scope=scope))):
                await self._app(scope, receive, send_with_id)
        finally:
            self._log(scope, status, time.perf_counter() - started)

    @staticmethod
    def _log(scope: Scope, status: int | None, seconds: float) -> None:
        facts = facts_of(scope)
        if facts.get("has_left"):
            status = CLIENT_CLOSED_REQUEST
        if scope["path"] in _PROBES and status == 200:
            return
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": facts["request_id"],
            "method": scope["method"],
            "path": scope["path"][:_MOST_PATH],
            "status": status,
            "seconds": round(seconds, _DECIMALS),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        line |= {name: facts[name] for name in ("key", "error") if name in facts}
        _LOG.info(json.dumps(line))
