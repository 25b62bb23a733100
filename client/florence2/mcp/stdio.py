"""The MCP server over standard input and output."""

import logging
import signal
from typing import Final

from mcp.server.stdio import stdio_server

from florence2.mcp.server import McpServer

_LOG: Final = logging.getLogger("florence2.mcp")


async def serve_stdio(server: McpServer) -> None:
    """Serve the one client at standard input, until it closes it, or standard output.

    Meanwhile standard output is standard error for everything else in this process, so that nothing but messages of
    the protocol reaches the client.
    """
    # A thread waits for input, and would outlive an interrupt until the next line: end at once, as SIGTERM does.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    except* BrokenPipeError:
        _LOG.warning("the client has closed standard output")
