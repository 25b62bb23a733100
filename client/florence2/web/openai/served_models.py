"""`/v1/models`, and what is known about the checkpoints of the models."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from florence2.errors import Florence2Error, InvalidArgumentError
from florence2.transports import ServerInfo
from florence2.web.models import Models
from florence2.web.openai.model_ids import ModelId, parse_model_id
from florence2.web.openai.task_choice import NAMED_TASKS

_LOG: Final = logging.getLogger("florence2.web")
_OWNER: Final = "florence2-triton"


class ServedModels:
    """What the servers serve.

    Args:
        models: the models.
        cached_seconds: the age at which this information is read again.
    """

    def __init__(self, models: Models, cached_seconds: float = 10.0) -> None:
        self._models = models
        self._cached_seconds = cached_seconds
        self._created = int(time.time())
        self._lock = asyncio.Lock()
        self._info: Mapping[str, Sequence[ServerInfo]] = {}
        self._expires = 0.0
        self._refreshing: asyncio.Task[Any] | None = None

    async def list(self, request: Request) -> Response:  # noqa: ARG002 - Starlette passes it
        """`GET /v1/models`: each model, with each of its tasks, and with each of its adapters."""
        info = await self.info()
        ids = [each for name in self._models.names for each in _ids(name, info.get(name, ()))]
        return JSONResponse({"object": "list", "data": [self._entry(each) for each in ids]})

    async def retrieve(self, request: Request) -> Response:
        """`GET /v1/models/{id}`: any id that a chat completion accepts."""
        text = request.path_params["id"]
        model = parse_model_id(text, self._models.names, list(NAMED_TASKS))
        adapters = _adapters((await self.info()).get(model.model, ()))
        if model.adapter is not None and model.adapter not in adapters:
            known = (
                f"with one of the adapters {', '.join(adapters)}"
                if adapters
                else "without an adapter, as the model has none"
            )
            raise InvalidArgumentError.of_field("model", text, f"an id {known}")
        return JSONResponse(self._entry(model))

    async def info(self) -> Mapping[str, Sequence[ServerInfo]]:
        """What the servers of each model serve; nothing for servers that do not respond."""
        async with self._lock:
            if time.monotonic() >= self._expires:
                try:
                    self._info = await self._models.server_info()
                except Florence2Error as error:
                    _LOG.warning("cannot read what the servers serve: %s", error)
                self._expires = time.monotonic() + self._cached_seconds
            return self._info

    def fingerprint(self, model: str) -> str | None:
        """The revision of a model's checkpoint; None if it has none, or it is not known without waiting."""
        if time.monotonic() >= self._expires and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self.info())
        revisions = {engine.revision for info in self._info.get(model, ()) for engine in info.engines}
        return revisions.pop() or None if len(revisions) == 1 else None

    def _entry(self, model: ModelId) -> dict[str, Any]:
        return {"id": str(model), "object": "model", "created": self._created, "owned_by": _OWNER}


def _ids(model: str, info: Sequence[ServerInfo]) -> Sequence[ModelId]:
    tasks = [ModelId(model, task) for task in NAMED_TASKS]
    return [ModelId(model), *tasks, *(ModelId(model, adapter=name) for name in _adapters(info))]


def _adapters(info: Sequence[ServerInfo]) -> Sequence[str]:
    return sorted({name for each in info for engine in each.engines for name in engine.adapters})
