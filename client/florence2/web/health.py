"""`GET /live` and `GET /ready`, for probes."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from florence2.transports import Health
from florence2.web.door import Door
from florence2.web.models import Models

_LOG: Final = logging.getLogger("florence2.web")
_CACHED_SECONDS: Final = 1.0
_TIMEOUT: Final = 1.0
_NO_STORE: Final = {"Cache-Control": "no-store"}


def routes(door: Door) -> list[BaseRoute]:
    """The routes for probes.

    `/live`: this process answers. `/ready`: at least one server of each model answers requests.
    """
    readiness = Readiness(door.models)

    async def live(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        return JSONResponse({"live": True}, headers=_NO_STORE)

    async def ready(request: Request) -> Response:  # noqa: ARG001
        states = await readiness.states()
        is_ready = all(map(_is_ready, states.values()))
        body = {"ready": is_ready, "models": [_model(name, servers) for name, servers in states.items()]}
        return JSONResponse(body, 200 if is_ready else 503, _NO_STORE)

    return [Route("/live", live), Route("/ready", ready)]


class Readiness:
    """The state of all servers, at most a second old. Changes are logged, with the reasons."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._lock = asyncio.Lock()
        self._states: Mapping[str, Sequence[Health]] = {}
        self._expires = 0.0

    async def states(self) -> Mapping[str, Sequence[Health]]:
        """The state of each model's servers. Concurrent calls share one check."""
        async with self._lock:
            if time.monotonic() >= self._expires:
                found = await self._models.health(_TIMEOUT)
                for name, servers in found.items():
                    self._log_change(name, servers)
                self._states, self._expires = found, time.monotonic() + _CACHED_SECONDS
            return self._states

    def _log_change(self, name: str, servers: Sequence[Health]) -> None:
        was_ready = _is_ready(self._states[name]) if name in self._states else None
        is_ready = _is_ready(servers)
        if is_ready and was_ready is False:
            _LOG.info("model %s is ready", name)
        elif not is_ready and was_ready is not False:
            reasons = "; ".join(f"{health.url}: engine {health.engine} {health.reason}".rstrip() for health in servers)
            _LOG.warning("model %s is not ready: %s", name, reasons)


def _is_ready(servers: Sequence[Health]) -> bool:
    return any(health.is_ready for health in servers)


def _model(name: str, servers: Sequence[Health]) -> dict[str, Any]:
    states = [{"ready": each.is_ready, "engine": each.engine, "reason": _reason(each)} for each in servers]
    return {"name": name, "ready": _is_ready(servers), "servers": states}


def _reason(health: Health) -> str:
    """Why a server is not ready, without its address, because this response needs no key."""
    if health.is_ready:
        return ""
    if not health.server_is_live:
        return "the server does not respond"
    if not health.model_is_ready:
        return "the server has not loaded the model"
    return f"the engine is {health.engine}"
