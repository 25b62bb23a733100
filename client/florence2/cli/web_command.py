"""The command `florence2 web`."""

import inspect
import sys
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from florence2.cli.connecting import client_keywords
from florence2.cli.exits import SUCCEEDED, CommandError, complain, reason
from florence2.cli.option_groups import ServerOptions
from florence2.cli.signatures import with_options
from florence2.client import AsyncClient
from florence2.errors import Florence2Error
from florence2.web.config import WebConfig

if TYPE_CHECKING:
    from starlette.applications import Starlette

_PACKAGES: Final = ("python_multipart", "sse_starlette", "starlette", "swagger_ui", "uvicorn")
_DEFAULTS: Final = WebConfig()
_LIMITS: Final = "Limits"
_ACCESS: Final = "Access"


@dataclass(frozen=True)
class WebOptions:
    """The web server's address, access rules and limits."""

    host: Annotated[str, typer.Option(help="The address to listen on.")] = _DEFAULTS.host
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free port.")] = (
        _DEFAULTS.port
    )
    api_keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Require one of the API keys in this file.", rich_help_panel=_ACCESS),
    ] = None
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Allow scripts of this website to send requests (CORS); may be repeated.",
            rich_help_panel=_ACCESS,
        ),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            metavar="NAME",
            help="Accept only requests whose Host header is this name; may be repeated.",
            rich_help_panel=_ACCESS,
        ),
    ] = None
    max_body_bytes: Annotated[
        int, typer.Option(min=1, help="The largest body of a request, in bytes.", rich_help_panel=_LIMITS)
    ] = _DEFAULTS.max_body_bytes
    max_pixels: Annotated[
        int, typer.Option(min=1, help="The largest image, width x height.", rich_help_panel=_LIMITS)
    ] = _DEFAULTS.max_image_pixels
    concurrency: Annotated[
        int, typer.Option(min=1, help="The maximum number of requests in flight.", rich_help_panel=_LIMITS)
    ] = _DEFAULTS.concurrency
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Time to finish requests in flight when it is stopped.", rich_help_panel=_LIMITS
        ),
    ] = _DEFAULTS.drain
    body_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Time within which the body of a request must arrive.", rich_help_panel=_LIMITS
        ),
    ] = _DEFAULTS.body_timeout
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="Print a line of JSON for each request.")
    ] = True
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False

    def config(self, timeout: float) -> WebConfig:
        """The settings of the web server."""
        return WebConfig(
            host=self.host,
            port=self.port,
            api_keys=self.api_keys,
            allowed_origins=tuple(self.allow_origin or ()),
            allowed_hosts=tuple(self.allowed_host or ()),
            max_body_bytes=self.max_body_bytes,
            max_image_pixels=self.max_pixels,
            concurrency=self.concurrency,
            timeout=timeout,
            body_timeout=self.body_timeout,
            drain=self.drain,
            access_log=self.access_log,
        )


@dataclass(frozen=True)
class LoadedAdapters:
    """The adapters of an engine in this process."""

    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="NAME=FOLDER",
            help="With --checkpoint: load this adapter, which requests choose by its name; may be repeated.",
            rich_help_panel="Server",
        ),
    ] = None


def models_options(**values: Any) -> list[ServerOptions]:
    """The servers of each model: `ServerOptions`, with `--model` repeatable."""
    names = values.pop("model") or [ServerOptions.model]
    first = ServerOptions(**values)
    if first.checkpoint is not None and len(names) > 1:
        raise CommandError("--model: only once with --checkpoint, which serves one model")
    return [replace(first, model=name) for name in dict.fromkeys(names)]


def _models_signature() -> inspect.Signature:
    names = typer.Option(
        "--model",
        metavar="NAME",
        help=f"A model's name in Triton (default: {ServerOptions.model}); repeat it for several models. Requests that "
        "name none go to the first.",
        rich_help_panel="Server",
    )
    seconds = typer.Option(
        metavar="SECONDS", help="Time for each request: the default, and the maximum.", rich_help_panel="Server"
    )
    changed: dict[str, dict[str, Any]] = {
        "model": {"annotation": Annotated[list[str] | None, names], "default": None},
        "timeout": {"annotation": Annotated[float, seconds]},
    }
    parameters = inspect.signature(ServerOptions).parameters
    assert set(changed) <= set(parameters)
    return inspect.Signature([each.replace(**changed.get(name, {})) for name, each in parameters.items()])


models_options.__signature__ = _models_signature()  # type: ignore[attr-defined]  # where inspect looks for it


def _web(options: WebOptions, servers: list[ServerOptions], adapters: LoadedAdapters) -> int:
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        raise CommandError(f'`florence2 web` needs {", ".join(missing)}, run: pip install "florence2-triton[web]"')
    # Imported here, because other commands need neither these packages nor the time to import them.
    from florence2.web.serving import bound, log_to_streams, serve, url_of

    if adapters.adapter and servers[0].checkpoint is None:
        raise CommandError("--adapter: only with --checkpoint; with servers, each request names its adapter")
    try:
        config = options.config(servers[0].timeout)
        listener = bound(config)
    except Florence2Error as error:
        raise CommandError(_as_options(str(error))) from error
    except OSError as error:
        raise CommandError(f"{options.host}:{options.port}: {reason(error)}") from error
    with listener:
        app = _app(config, servers, adapters.adapter or [])
        url = url_of(config, listener)
        if not config.is_local and config.api_keys is None:
            complain(f"warning: anyone who can connect to {config.host} can use it; --api-keys FILE restricts access")
        listener.listen()  # the printed address must accept connections at once
        print(f"florence2 web: {url}", file=sys.stderr, flush=True)  # noqa: T201 - what a command is for
        if options.open_browser:
            typer.launch(url)
        log_to_streams(has_access_log=config.access_log)
        serve(app, config, listener)
    return SUCCEEDED


def _app(config: WebConfig, servers: list[ServerOptions], adapters: list[str]) -> "Starlette":
    from florence2.web.app import make_app
    from florence2.web.models import Models

    if servers[0].checkpoint is not None:
        complain(f"loading {servers[0].checkpoint}")  # it takes seconds, or minutes if it is downloaded
    try:
        clients = {each.model: AsyncClient(**client_keywords(each, *adapters)) for each in servers}
        return make_app(config, Models(clients))
    except Florence2Error as error:
        raise CommandError(_as_options(str(error))) from error
    except OSError as error:
        raise CommandError(f"{error.filename or config.api_keys}: {reason(error)}") from error


def _as_options(message: str) -> str:
    """A message about a setting, with the setting's name as an option."""
    name, separator, rest = message.partition(":")
    option = {"max_image_pixels": "max_pixels"}.get(name, name)
    is_setting = name in {field.name for field in fields(WebConfig)}
    return f"--{option.replace('_', '-')}{separator}{rest}" if is_setting else message


web: Any = with_options(_web, WebOptions, models_options, LoadedAdapters)
"""The command's function, for typer."""
web.__doc__ = (
    "Serve a page, REST and OpenAI's API over HTTP. In front of Triton servers, or with --checkpoint.\n\n"
    "Exit status: 0 stopped by a signal, 2 wrong usage or an address in use."
)
