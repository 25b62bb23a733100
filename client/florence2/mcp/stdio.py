"""The MCP server over standard input and output."""

import signal

from mcp.server.stdio import stdio_server

from florence2.mcp.server import McpServer


async def serve_stdio(server: McpServer) -> None:
    """Serve the client at standard input until it closes it.

    Meanwhile, anything else that this process writes to standard output goes to standard error, so that the client
    receives only messages of the protocol.
    """
    # A thread waits for input and would keep the process alive until the next line: end at once, as with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
