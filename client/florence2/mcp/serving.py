"""Running the MCP server: over standard input and output, or over HTTP."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import uvicorn
from mcp.server.stdio import stdio_server

from florence2.client import AsyncClient
from florence2.errors import Florence2Error
from florence2.mcp.calls import CallLimits
from florence2.mcp.http import http_app
from florence2.mcp.roots import Roots
from florence2.mcp.server import make_server
from florence2.web.config import WebConfig

_LOG: Final = logging.getLogger("florence2.mcp")
_DRAIN_SECONDS: Final = 5


@dataclass(frozen=True)
class ToolSettings:
    """What the tools may do, and who answers.

    Attributes:
        make_client: makes the client; may take minutes to load a checkpoint.
        roots: the folders whose files a call may name.
        adapter: the adapter that answers; None: none.
        limits: of calls.
    """

    make_client: Callable[[], AsyncClient]
    roots: Roots = field(default_factory=Roots)
    adapter: str | None = None
    limits: CallLimits = field(default_factory=CallLimits)


async def serve_stdio(settings: ToolSettings) -> None:
    """Serve the one client at standard input, until it closes it.

    Meanwhile standard output is standard error for everything else in this process, so that nothing but messages of
    the protocol reaches the client. The client is made in the background, because hosts do not wait for a server's
    first response as long as a checkpoint takes to load: the first calls wait. If it cannot be made, each call says so.
    """
    # A thread waits for input, and would outlive an interrupt until the next line: end at once, as SIGTERM does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    client: asyncio.Future[AsyncClient]

    async def connect() -> AsyncClient:
        return await asyncio.shield(client)  # a call that is cancelled does not cancel it for the others

    server = make_server(connect, settings.roots, settings.adapter, settings.limits)
    async with stdio_server() as (incoming, outgoing):
        client = asyncio.ensure_future(_client(settings.make_client))
        try:
            await server.run(incoming, outgoing, server.create_initialization_options())
        finally:
            if client.done() and client.exception() is None:
                await client.result().close()


async def serve_http(settings: ToolSettings, config: WebConfig, listener: socket.socket) -> None:
    """Serve HTTP until SIGTERM or SIGINT.

    Clients keep a stream open for notifications, so connections do not end by themselves: those that are left after a
    few seconds are closed.

    Raises:
        Florence2Error, OSError: the client cannot be made, or `config` is wrong (see `http_app`).
    """
    client: AsyncClient

    async def connect() -> AsyncClient:
        return client

    app = http_app(make_server(connect, settings.roots, settings.adapter, settings.limits), config)
    client = await asyncio.to_thread(settings.make_client)
    options = uvicorn.Config(
        app, log_config=None, server_header=False, proxy_headers=False, timeout_graceful_shutdown=_DRAIN_SECONDS
    )
    async with client:
        await uvicorn.Server(options).serve([listener])


async def _client(make: Callable[[], AsyncClient]) -> AsyncClient:
    try:
        return await asyncio.to_thread(make)
    except Florence2Error as error:
        _LOG.error("%s", error)
        raise
