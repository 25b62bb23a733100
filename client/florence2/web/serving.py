"""Running the app with uvicorn."""

import logging
import signal
import socket
import sys
from typing import Final, TextIO

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from florence2.web.access_log import ACCESS_LOG
from florence2.web.config import WebConfig
from florence2.web.connections import Connection

_BACKLOG: Final = 2048


def bound(config: WebConfig) -> socket.socket:
    """A socket with the configured address. It does not listen yet, so that no caller waits while a checkpoint loads.

    Raises:
        OSError: the address is in use, is not one of this machine, or needs rights that this process lacks.
    """
    found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def url_of(config: WebConfig, listener: socket.socket) -> str:
    """The address of the page, for a person on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host)  # noqa: S104 - compared, not listened on
    if host is None:
        host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listener.getsockname()[1]}"


def serve(app: ASGIApp, config: WebConfig, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and then finish the requests in flight within `config.drain` seconds.

    Raises:
        KeyboardInterrupt: it was SIGINT.
    """
    server = uvicorn.Server(server_config(app, config))
    # This handles the signal until uvicorn does. When it has stopped, uvicorn raises the signal again, which would kill
    # this process if there were no handler.
    previous = signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    try:
        server.run([listener])
    finally:
        signal.signal(signal.SIGTERM, previous)


def server_config(app: ASGIApp, config: WebConfig) -> uvicorn.Config:
    """Uvicorn's settings."""
    # Streams end like other requests, with the answer or after the time for stopping, and not at once.
    AppStatus.enable_automatic_graceful_drain = False
    return uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",  # gRPC needs it
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=max(1, round(config.drain)),
    )


def log_to_streams(*, has_access_log: bool) -> None:
    """Write the access log to standard output, and messages to standard error."""
    _log_to(ACCESS_LOG, sys.stdout, "%(message)s", logging.INFO if has_access_log else logging.CRITICAL)
    _log_to("florence2.web", sys.stderr, "%(asctime)s %(levelname)s %(message)s", logging.INFO)
    _log_to("uvicorn.error", sys.stderr, "%(asctime)s %(levelname)s %(message)s", logging.WARNING)


def _log_to(name: str, stream: TextIO, form: str, level: int) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(form))
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
