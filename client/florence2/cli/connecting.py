"""A client for the options of the command line: of servers, or of an engine in this process."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from florence2.cli.exits import UNREACHABLE, CommandError, reason
from florence2.cli.option_groups import DEFAULT_URL, URL_VARIABLE, ServerOptions, header_pairs
from florence2.client import TLS, Client
from florence2.errors import AccessDeniedError, Florence2Error, ServerError
from florence2.transports import TransportNotFoundError, load_transport

_MOST_PROBE_SECONDS: Final = 5.0
# Targets of gRPC that may stand for several servers, e.g. the pods of a headless Service.
_SEVERAL_ADDRESSES: Final = ("dns:", "ipv4:", "ipv6:")
_SERVER_PACKAGE: Final = "florence2-triton-server"


@contextmanager
def connected(options: ServerOptions, adapter: str | None = None) -> Iterator[Client]:
    """A client, closed when the block ends. If servers answer, at least one of them can be reached.

    Args:
        options: the servers, or the checkpoint.
        adapter: `NAME=FOLDER` of an adapter to load, if there is a checkpoint.

    Raises:
        CommandError: an option is wrong, no server can be reached, or the checkpoint cannot be loaded.
    """
    try:
        client = Client(**client_keywords(options, adapter))
    except (Florence2Error, OSError) as error:
        raise CommandError(_named(error)) from error
    with client:
        if options.checkpoint is None:
            _require_reachable(client, options.timeout)
        yield client


def client_keywords(options: ServerOptions, *adapters: str | None) -> dict[str, Any]:
    """The keywords of `Client` and `AsyncClient` for these options.

    Args:
        options: the servers, or the checkpoint.
        adapters: `NAME=FOLDER` of adapters to load, if there is a checkpoint.

    Raises:
        CommandError: an option is wrong, or the checkpoint cannot be loaded.
    """
    return _of_servers(options) if options.checkpoint is None else _in_process(options, adapters)


def adapter_name(options: ServerOptions, adapter: str | None) -> str | None:
    """The name that a request calls its adapter."""
    return adapter if adapter is None or options.checkpoint is None else adapter.partition("=")[0]


def _of_servers(options: ServerOptions) -> dict[str, Any]:
    if options.device is not None:
        raise CommandError("--device: only with --checkpoint; a server has devices of its own")
    urls = options.url or [DEFAULT_URL]
    if blank := [url for url in urls if not url.strip()]:
        raise CommandError(f"--url: got {blank[0]!r}, expected HOST:PORT")
    files = (options.tls_root_certificates, options.tls_private_key, options.tls_certificate_chain)
    return {
        "url": urls,
        "model": options.model,
        "timeout": options.timeout,
        "headers": header_pairs(options.header) or None,
        "tls": TLS(*files) if options.tls or any(files) else None,
        "channel_args": [*_balancing(urls), *_overriding(options.tls_server_name)],
    }


def _balancing(urls: list[str]) -> Iterator[tuple[str, str]]:
    """Balance over all addresses of a target: by default, gRPC uses only the first that accepts a connection."""
    if any(url.startswith(_SEVERAL_ADDRESSES) for url in urls):
        yield "grpc.lb_policy_name", "round_robin"


def _overriding(name: str | None) -> Iterator[tuple[str, str]]:
    if name:
        yield "grpc.ssl_target_name_override", name


def _require_reachable(client: Client, timeout: float) -> None:
    """Fail at once if no server responds, rather than when the first image's timeout expires."""
    seconds = min(timeout, _MOST_PROBE_SECONDS)
    try:
        if client.is_ready(timeout=seconds):
            return
        healths = client.health(timeout=seconds)
    except AccessDeniedError:
        return  # from health, perhaps not from requests
    except ServerError as error:
        raise CommandError(f"no server can be reached: {error}", UNREACHABLE) from error
    if not any(health.server_is_live for health in healths):
        reasons = "; ".join(f"{health.url}: {health.reason}" for health in healths)
        raise CommandError(f"no server can be reached: {reasons}", UNREACHABLE)


def _in_process(options: ServerOptions, given_adapters: Sequence[str | None]) -> dict[str, Any]:
    # The variable may be set for other commands.
    url = options.url if URL_VARIABLE not in os.environ else None
    given = {"--url": url, "--header": options.header, "--tls": options.tls}
    if names := [name for name, value in given.items() if value]:
        raise CommandError(f"{names[0]}: not with --checkpoint, which needs no server")
    settings: dict[str, Any] = {} if options.device is None else {"device": options.device}
    adapters = dict(_adapter(each) for each in given_adapters if each is not None)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # progress of loading, read by tqdm when it is imported
    try:
        transport = load_transport("in_process")(options.checkpoint, adapters=adapters, **settings)
    except TransportNotFoundError as error:
        raise CommandError(f"--checkpoint: run pip install {_SERVER_PACKAGE}") from error
    except ImportError as error:
        raise CommandError(f"--checkpoint: {error}; run pip install {_SERVER_PACKAGE}") from error
    except Exception as error:  # the server's own errors, which this package cannot import
        if not type(error).__module__.startswith("florence2"):
            raise
        raise CommandError(str(error)) from error
    return {"transport": transport, "timeout": options.timeout}


def _adapter(given: str) -> tuple[str, str]:
    name, _, folder = given.partition("=")
    if not name or not folder:
        raise CommandError(f"--adapter: got {given!r}, expected NAME=FOLDER with --checkpoint")
    return name, folder


def _named(error: Exception) -> str:
    name = getattr(error, "filename", None)
    return f"{name}: {reason(error)}" if name else str(error)
