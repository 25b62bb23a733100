"""The models that are served, each with a client."""

import asyncio
from collections.abc import Mapping

from florence2.client import AsyncClient
from florence2.errors import InvalidArgumentError
from florence2.transports import Health, ServerInfo


class Models:
    """Clients of one or more models, by the model's name.

    Args:
        clients: at least one; the first is the default. They are used in one event loop, and closed by `close`.
    """

    def __init__(self, clients: Mapping[str, AsyncClient]) -> None:
        if not clients:
            raise InvalidArgumentError.of_field("clients", clients, "at least one")
        self._clients = dict(clients)

    @property
    def names(self) -> tuple[str, ...]:
        """The models' names; the first is the default."""
        return tuple(self._clients)

    def client(self, name: str | None = None) -> AsyncClient:
        """The client of a model, of the default model for None.

        Raises:
            InvalidArgumentError: there is no model of this name.
        """
        if name is None:
            return self._clients[self.names[0]]
        if name not in self._clients:
            raise InvalidArgumentError.of_field("model", name, f"one of {', '.join(self.names)}")
        return self._clients[name]

    async def health(self, timeout: float = 1.0) -> dict[str, list[Health]]:
        """The state of each model's servers, in the order of the URLs."""
        states = await asyncio.gather(*(client.health(timeout=timeout) for client in self._clients.values()))
        return dict(zip(self._clients, states, strict=True))

    async def server_info(self, timeout: float = 1.0) -> dict[str, list[ServerInfo]]:
        """What each model's servers serve. Servers that do not respond are left out."""
        states = await self.health(timeout)
        return {name: [_info(name, health) for health in states[name] if health.server_is_live] for name in states}

    async def close(self) -> None:
        """Close all clients; requests in flight end with `RequestCancelledError`."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))


def _info(model: str, health: Health) -> ServerInfo:
    # Older servers do not report what they serve.
    return health.info or ServerInfo(url=health.url, version="", model=model)
