"""Running the app with uvicorn."""

import socket

import uvicorn

from florence2.web.app import make_app
from florence2.web.config import WebConfig
from florence2.web.models import Models


def bound(config: WebConfig) -> socket.socket:
    """A socket that listens on the configured address.

    Raises:
        OSError: the address is in use, or is none of this machine.
    """
    found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family, backlog=2048)


def url_of(config: WebConfig, listener: socket.socket) -> str:
    """The address of the page, for a person."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"http://{host}:{listener.getsockname()[1]}"


def serve(config: WebConfig, models: Models, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and then finish the requests in flight."""
    settings = uvicorn.Config(
        make_app(config, models),
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(config.drain),
    )
    uvicorn.Server(settings).run([listener])
