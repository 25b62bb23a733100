"""The command `florence2 mcp`."""

import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from florence2.cli.connecting import adapter_name, client_keywords
from florence2.cli.exits import SUCCEEDED, CommandError, complain
from florence2.cli.option_groups import AdapterOption, ServerOptions
from florence2.cli.signatures import with_options
from florence2.client import AsyncClient
from florence2.errors import Florence2Error

if TYPE_CHECKING:
    from florence2.mcp.calls import CallLimits
    from florence2.mcp.roots import Roots

_FILES: Final = "Files"
_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class McpOptions:
    """What the tools may do."""

    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            metavar="FOLDER",
            help="Let tools read image files inside this folder; may be repeated. Default: none.",
            rich_help_panel=_FILES,
        ),
    ] = None
    max_image_bytes: Annotated[int, typer.Option(min=1, help="The largest image file.", rich_help_panel=_FILES)] = (
        32 * _MIB
    )
    max_pixels: Annotated[
        int, typer.Option(min=1, help="The largest image, width x height.", rich_help_panel=_FILES)
    ] = 100_000_000
    concurrency: Annotated[int, typer.Option(min=1, help="Calls in work at the same time.")] = 64


def _mcp(options: McpOptions, server: ServerOptions, adapter: AdapterOption) -> int:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        from florence2.mcp.calls import CallLimits
        from florence2.mcp.roots import Roots
    except ImportError as error:
        raise CommandError(f'needs more packages, run: pip install "florence2-triton[mcp]" ({error})') from error
    limits = CallLimits(options.max_image_bytes, options.max_pixels, options.concurrency)
    try:
        roots = Roots(options.root or [])
    except Florence2Error as error:
        raise CommandError(str(error)) from error
    asyncio.run(_serve(roots, limits, server, adapter.adapter))
    return SUCCEEDED


async def _serve(roots: "Roots", limits: "CallLimits", options: ServerOptions, adapter: str | None) -> None:
    from florence2.mcp.server import make_server
    from florence2.mcp.serving import serve_stdio

    client = asyncio.create_task(_client(options, adapter))

    async def connect() -> AsyncClient:
        return await asyncio.shield(client)  # a call that is cancelled does not cancel it for the others

    try:
        await serve_stdio(make_server(connect, roots, adapter_name(options, adapter), limits))
    finally:
        if client.done() and client.exception() is None:
            await client.result().close()


async def _client(options: ServerOptions, adapter: str | None) -> AsyncClient:
    """The client. With a checkpoint, loading takes longer than hosts wait for a server's first response.

    Raises:
        Florence2Error: it cannot be made. Each call of a tool then has this error.
    """
    try:
        keywords = await asyncio.to_thread(client_keywords, options, adapter)
        return AsyncClient(**keywords)
    except (CommandError, Florence2Error, OSError) as error:
        complain(str(error))
        raise Florence2Error(f"this server cannot answer: {error}") from error


mcp: Any = with_options(_mcp, McpOptions, ServerOptions, AdapterOption)
"""The command's function, for typer."""
mcp.__doc__ = (
    "Serve tools for language models (MCP): caption, detect, read, ground, segment, describe_region.\n\n"
    "Exit status: 0 the client has closed the connection, 2 wrong usage."
)
