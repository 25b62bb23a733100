"""`GET /live` and `GET /ready`, for probes."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from florence2.transports import Health
from florence2.web.door import Door

_CACHED_SECONDS: Final = 1.0
_TIMEOUT: Final = 1.0


def routes(door: Door) -> list[BaseRoute]:
    """The routes of probes."""
    readiness = Readiness(door)

    async def live(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:  # noqa: ARG001
        states = await readiness.states()
        is_ready = all(any(health.is_ready for health in servers) for servers in states.values())
        body = {"ready": is_ready, "models": [_model(name, servers) for name, servers in states.items()]}
        return JSONResponse(body, 200 if is_ready else 503)

    return [Route("/live", live), Route("/ready", ready)]


class Readiness:
    """The state of all servers, at most a second old."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._lock = asyncio.Lock()
        self._states: Mapping[str, Sequence[Health]] = {}
        self._expires = 0.0

    async def states(self) -> Mapping[str, Sequence[Health]]:
        """The servers of each model. One request asks them; the others wait for what it finds."""
        async with self._lock:
            if time.monotonic() >= self._expires:
                self._states = await self._door.models.health(_TIMEOUT)
                self._expires = time.monotonic() + _CACHED_SECONDS
            return self._states


def _model(name: str, servers: Sequence[Health]) -> dict[str, Any]:
    return {"name": name, "ready": any(health.is_ready for health in servers), "servers": [_server(s) for s in servers]}


def _server(health: Health) -> dict[str, Any]:
    return {"url": health.url, "ready": health.is_ready, "engine": health.engine, "reason": health.reason}
