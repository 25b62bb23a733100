"""The command `florence2 mcp`."""

import asyncio
import logging
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from florence2.cli.connecting import adapter_name, client_keywords
from florence2.cli.exits import SUCCEEDED, CommandError, reason
from florence2.cli.option_groups import AdapterOption, ServerOptions
from florence2.cli.signatures import with_options
from florence2.client import AsyncClient
from florence2.errors import Florence2Error

if TYPE_CHECKING:
    from florence2.mcp.calls import CallLimits
    from florence2.mcp.server import McpServer
    from florence2.web.config import WebConfig

_FILES: Final = "Files"
_HTTP: Final = "HTTP"
_HOST: Final = "127.0.0.1"
_PORT: Final = 8090
# Clients keep a stream open for notifications, so their connections do not close by themselves.
_DRAIN_SECONDS: Final = 5.0
_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class McpOptions:
    """What the tools may do."""

    root: Annotated[
        list[Path] | None,
        typer.Option(
            "--root",
            metavar="FOLDER",
            help="Allow tools to read image files inside this folder; may be repeated. Default: none.",
            rich_help_panel=_FILES,
        ),
    ] = None
    max_image_bytes: Annotated[
        int, typer.Option(min=1, help="The largest image file, in bytes.", rich_help_panel=_FILES)
    ] = 32 * _MIB
    max_pixels: Annotated[
        int, typer.Option(min=1, help="The largest image, width x height.", rich_help_panel=_FILES)
    ] = 100_000_000
    concurrency: Annotated[int, typer.Option(min=1, help="The maximum number of calls in flight.")] = 64


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
            help=f"The port to listen on; 0 for any free port. Default: {_PORT}.",
            rich_help_panel=_HTTP,
            show_default=False,
        ),
    ] = None
    api_keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Require one of the API keys in this file; necessary if other machines can connect.",
            rich_help_panel=_HTTP,
        ),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="Accept only requests whose Host header is this name; may be repeated.",
            rich_help_panel=_HTTP,
        ),
    ] = None

    def config(self, limits: "CallLimits") -> "WebConfig":
        """The settings of the web server."""
        from florence2.web.config import WebConfig

        return WebConfig(
            host=self.host or _HOST,
            port=_PORT if self.port is None else self.port,
            api_keys=self.api_keys,
            allowed_hosts=tuple(self.allowed_host or ()),
            # Base64 has four characters for three bytes, and there are other arguments.
            max_body_bytes=limits.image_bytes * 4 // 3 + _MIB,
            max_image_pixels=limits.image_pixels,
            concurrency=limits.concurrency,
            drain=_DRAIN_SECONDS,
        )

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
        from florence2.mcp.server import make_server
        from florence2.mcp.stdio import serve_stdio
    except ImportError as error:
        raise CommandError(f'needs more packages, run: pip install "florence2-triton[mcp]" ({error})') from error
    limits = CallLimits(options.max_image_bytes, options.max_pixels, options.concurrency)
    make_client = partial(_client, server, adapter.adapter)
    try:
        if server.checkpoint is None:
            make_client()  # checks the options, and connects to nothing
        mcp_server = make_server(make_client, Roots(options.root or []), adapter_name(server, adapter.adapter), limits)
    except Florence2Error as error:
        raise CommandError(str(error)) from error
    if http.http:
        _serve_http(mcp_server, http, limits)
    else:
        asyncio.run(serve_stdio(mcp_server))
    return SUCCEEDED


def _serve_http(server: "McpServer", http: HttpOptions, limits: "CallLimits") -> None:
    from florence2.mcp.http import http_app
    from florence2.web.requests import MCP_PATH
    from florence2.web.serving import bound, log_to_streams, serve, url_of

    try:
        config = http.config(limits)
        app = http_app(server, config)
        listener = bound(config)
    except Florence2Error as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or f'{http.host}:{http.port}'}: {reason(error)}") from error
    with listener:
        url = f"{url_of(config, listener)}{MCP_PATH}"
        listener.listen()  # the printed address must accept connections at once
        print(f"florence2 mcp: {url}", file=sys.stderr, flush=True)  # noqa: T201 - what a command is for
        log_to_streams(has_access_log=True)
        serve(app, config, listener)


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
    "Serve tools for language models (MCP). They are caption, detect, read, ground, segment and describe_region.\n\n"
    "Exit status: 0 the client has closed the connection or a signal stopped it, 2 wrong usage or an address in use."
)
