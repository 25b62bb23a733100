"""Health over HTTP: the paths `/live` and `/ready`, for probes that only know status codes."""

import io
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from florence2_server.stub.health_report import Report

_MAX_CONNECTIONS = 32  # each has a thread
_REQUEST_SECONDS = 2.0  # for the whole head of a request
_MAX_HEAD_BYTES = 4096
_STOP_SECONDS = 0.1
_END_OF_HEAD = b"\r\n\r\n"
_PATH = re.compile(r"/|/(?P<kind>live|ready)(/(?P<model>[^/]+))?")


class HealthHttpServer:
    """Answers GET and HEAD.

    `/live` and `/ready` are about all models, `/live/NAME` and `/ready/NAME` about one: the status is 200, or 503 if it
    is not alive or not ready. The status of `/` is always 200. The body is JSON:
    `{"models": {NAME: {"state": ..., "version": ..., "engines": [...]}}}`.

    Args:
        address: the address to listen on; both IPv4 and IPv6 for `::`.
        port: the port to listen on; 0: any.
        report: returns the current report.

    Attributes:
        port: the port that it listens on.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, address: str, port: int, report: Callable[[], Report]) -> None:
        self._server = _Server(address, port, report)
        self.port: int = self._server.server_address[1]
        serve = partial(self._server.serve_forever, poll_interval=_STOP_SECONDS)
        self._thread = threading.Thread(target=serve, name="health-http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    """Limits the number of connections, so that idle ones never keep probes out.

    Beyond the limit, a new connection ends the oldest of those that have not sent a request. If all have sent one, it
    ends the oldest of all.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, address: str, port: int, report: Callable[[], Report]) -> None:
        self.report = report
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, bool] = {}  # in order of arrival; whether their requests were received
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family, self._own_address = found[0], found[-1]
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        """Bind, to IPv4 too if the address is `::`; without the look-up of the host's name, which may take seconds."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self._own_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection."""
        with self._lock:
            if len(self._connections) >= _MAX_CONNECTIONS:
                idle = (each for each, has_sent in self._connections.items() if not has_sent)
                ended = next(idle, next(iter(self._connections)))
                del self._connections[ended]
                _end(ended)
            self._connections[request] = False
        super().process_request(request, client_address)

    def note_request(self, connection: Any) -> None:
        """Note that the request of a connection was received."""
        with self._lock:
            if connection in self._connections:
                self._connections[connection] = True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.pop(request, None)
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an exception, unless the client is gone or was too slow."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.request.settimeout(_REQUEST_SECONDS)
        super().setup()
        self.rfile = io.BytesIO(_read_head(self.request))  # all that is left to read
        self.server.note_request(self.request)

    def do_GET(self) -> None:
        answer = _answer(self.path.partition("?")[0], self.server.report())
        status, body = (HTTPStatus.NOT_FOUND, json.dumps({"error": "not found"}) + "\n") if answer is None else answer
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def version_string(self) -> str:
        return "florence2"

    def log_message(self, *_: object) -> None:
        """Do not log requests: probes come every few seconds."""


def _answer(path: str, report: Report) -> tuple[HTTPStatus, str] | None:
    """The status and the body for a path; None if there is no such path."""
    found = _PATH.fullmatch(path)
    model = found and found["model"]
    if found is None or (model is not None and model not in report.names):
        return None
    part = report.about(model)
    is_fine = {None: True, "live": part.is_alive, "ready": report.is_ready(model)}[found["kind"]]
    return HTTPStatus.OK if is_fine else HTTPStatus.SERVICE_UNAVAILABLE, part.to_json()


def _read_head(connection: socket.socket) -> bytes:
    """Read the head of a request.

    Raises:
        OSError: the client is gone, too slow, or sends too much.
    """
    deadline = time.monotonic() + _REQUEST_SECONDS
    head = b""
    while _END_OF_HEAD not in head:
        connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        received = connection.recv(_MAX_HEAD_BYTES)
        head += received
        if not received or len(head) > _MAX_HEAD_BYTES:
            raise ConnectionError("not the head of a request")
    return head


def _end(connection: socket.socket) -> None:
    """End a connection, so that its thread, which owns it, stops reading and closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client has ended it already
