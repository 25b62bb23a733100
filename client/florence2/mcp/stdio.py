"""The MCP server over standard input and output."""

import logging
import signal
from typing import Final

from mcp.server.stdio import stdio_server

from florence2.mcp.server import McpServer

_LOG: Final = logging.getLogger("florence2.mcp")


async def serve_stdio(server: McpServer) -> None:
    """Serve the client at standard input until it closes standard input or output.

    Meanwhile, anything else that this process writes to standard output goes to standard error, so that the client
    receives only messages of the protocol.
    """
    # A thread waits for input and would keep the process alive until the next line: end at once, as with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    except* BrokenPipeError:
        _LOG.warning("the client has closed standard output")
