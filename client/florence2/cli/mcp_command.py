"""The command `florence2 mcp`."""

import asyncio
import logging
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from florence2.cli.connecting import adapter_name, client_keywords
from florence2.cli.exits import SUCCEEDED, CommandError, reason
from florence2.cli.option_groups import AdapterOption, ServerOptions
from florence2.cli.signatures import with_options
from florence2.client import AsyncClient
from florence2.errors import Florence2Error

_FILES: Final = "Files"
_HTTP: Final = "HTTP"
_HOST: Final = "127.0.0.1"
_PORT: Final = 8090
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


@dataclass(frozen=True)
class HttpOptions:
    """How the server is reached, if not by standard input and output."""

    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP instead of stdio.", rich_help_panel=_HTTP)
    ] = False
    host: Annotated[
        str | None,
        typer.Option(help=f"The address to listen on. Default: {_HOST}.", rich_help_panel=_HTTP, show_default=False),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"0 for any free port. Default: {_PORT}.",
            rich_help_panel=_HTTP,
            show_default=False,
        ),
    ] = None
    api_keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Require a key of this file; needed if other machines can connect.",
            rich_help_panel=_HTTP,
        ),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="Refuse requests for other hosts; may be repeated.",
            rich_help_panel=_HTTP,
        ),
    ] = None

    def check(self) -> None:
        """Check that the options of HTTP are given only with it.

        Raises:
            CommandError: one is given without `--http`.
        """
        given = {
            "--host": self.host,
            "--port": self.port,
            "--api-keys": self.api_keys,
            "--allowed-host": self.allowed_host,
        }
        if not self.http and (names := [name for name, value in given.items() if value is not None]):
            raise CommandError(f"{names[0]}: only with --http")


def _mcp(options: McpOptions, http: HttpOptions, server: ServerOptions, adapter: AdapterOption) -> int:
    http.check()
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        from florence2.mcp.calls import CallLimits
        from florence2.mcp.roots import Roots
        from florence2.mcp.serving import ToolSettings, serve_stdio
    except ImportError as error:
        raise CommandError(f'needs more packages, run: pip install "florence2-triton[mcp]" ({error})') from error
    try:
        settings = ToolSettings(
            partial(_client, server, adapter.adapter),
            Roots(options.root or []),
            adapter_name(server, adapter.adapter),
            CallLimits(options.max_image_bytes, options.max_pixels, options.concurrency),
        )
        if http.http:
            _serve_http(settings, http)
        else:
            asyncio.run(serve_stdio(settings))
    except (Florence2Error, OSError) as error:
        raise CommandError(str(error)) from error
    return SUCCEEDED


def _serve_http(settings: Any, http: HttpOptions) -> None:
    from florence2.mcp.serving import serve_http
    from florence2.web.config import WebConfig
    from florence2.web.serving import bound, url_of

    limits = settings.limits
    config = WebConfig(
        host=http.host or _HOST,
        port=_PORT if http.port is None else http.port,
        api_keys=http.api_keys,
        allowed_hosts=tuple(http.allowed_host or ()),
        # Base64 has four characters for three bytes, and there are other arguments.
        max_body_bytes=limits.image_bytes * 4 // 3 + _MIB,
        max_image_pixels=limits.image_pixels,
        concurrency=limits.concurrency,
    )
    try:
        listener = bound(config)
    except OSError as error:
        raise CommandError(f"{config.host}:{config.port}: {reason(error)}") from error
    with listener:
        print(f"florence2 mcp: {url_of(config, listener)}/mcp", file=sys.stderr, flush=True)  # noqa: T201 - what a command is for
        asyncio.run(serve_http(settings, config, listener))


def _client(options: ServerOptions, adapter: str | None) -> AsyncClient:
    """The client that answers.

    Raises:
        Florence2Error: an option is wrong, or the checkpoint cannot be loaded.
    """
    try:
        return AsyncClient(**client_keywords(options, adapter))
    except (CommandError, OSError) as error:
        raise Florence2Error(str(error)) from error


mcp: Any = with_options(_mcp, McpOptions, HttpOptions, ServerOptions, AdapterOption)
"""The command's function, for typer."""
mcp.__doc__ = (
    "Serve tools for language models (MCP): caption, detect, read, ground, segment, describe_region.\n\n"
    "Exit status: 0 the client has closed standard input, 2 wrong usage or an address in use."
)
