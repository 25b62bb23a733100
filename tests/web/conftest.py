"""`florence2 web`, as an app of this process and as a real process in front of the real server."""

import io
import re
import socket
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager

import PIL.Image
import pytest
import uvicorn
from florence2 import AsyncClient
from florence2.testing import MockTransport, task_response
from florence2.web.app import make_app
from florence2.web.config import WebConfig
from florence2.web.models import Models
from florence2.web.requests import facts_of, request_id_of
from florence2.web.serving import bound, server_config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient

from tests.cli.commands import COMMAND
from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.server.conftest import server, start_server

__all__ = ["server", "start_server"]

STOP_SECONDS = 60
IMAGE_SIZE = (64, 48)


def picture() -> bytes:
    """A small image file of `IMAGE_SIZE`."""
    file = io.BytesIO()
    PIL.Image.new("RGB", IMAGE_SIZE, "white").save(file, "PNG")
    return file.getvalue()


def respond(image, request):  # noqa: ARG001
    """The response of the mock: a caption, or a dog in a box."""
    is_text = request.WhichOneof("task") in ("caption", "ocr", "region_to_description", None)
    text = "A dog." if is_text else "dog<loc_100><loc_200><loc_300><loc_400>"
    return task_response(text, IMAGE_SIZE)


async def echo(request: Request) -> Response:
    """The length of the body, after the request's id and the name of its key."""
    body = await request.body()
    return JSONResponse({"bytes": len(body), "id": request_id_of(request), "key": facts_of(request.scope).get("key")})


def echo_app(*routes: BaseRoute, handler=respond, transport=None, **settings) -> Starlette:
    """The app over a mock or another transport, with `POST /v1/echo` and other routes."""
    models = Models({"florence2": AsyncClient(transport=transport or MockTransport(handler))})
    app = make_app(WebConfig(**settings), models)
    app.router.routes[:0] = [Route("/v1/echo", echo, methods=["POST"]), *routes]
    return app


@pytest.fixture
def app_client():
    """`app_client(*routes, **settings)`: a client of `echo_app`, entered, because it belongs to one event loop."""
    with ExitStack() as stack:

        def open_client(*routes: BaseRoute, **settings) -> TestClient:
            return stack.enter_context(TestClient(echo_app(*routes, **settings), base_url="http://localhost"))

        yield open_client


@pytest.fixture
def app_socket():
    """`app_socket(*routes, **settings)`: connect to `echo_app`, which uvicorn serves in a thread."""
    with ExitStack() as stack:

        def connect(*routes: BaseRoute, **settings) -> socket.socket:
            config = WebConfig(port=0, **settings)
            listener = stack.enter_context(bound(config))
            address = listener.getsockname()
            app = echo_app(*routes, **settings)
            server = uvicorn.Server(server_config(app, config))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            stack.callback(thread.join, STOP_SECONDS)
            stack.callback(setattr, server, "should_exit", True)
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            return stack.enter_context(socket.create_connection(address, timeout=STOP_SECONDS))

        yield connect


@contextmanager
def web_process(*arguments: object):
    """`florence2 web` as a process of its own on a free port. Yields its URL and the process.

    The process's attribute `seen` has the lines that it has printed to standard error, `log` those of its access log.
    """
    command = [*COMMAND, "web", "--port", "0", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        process.seen, process.log, readers = [], [], []
        try:
            url = next(filter(None, map(_url, iter(lambda: _kept(process.stderr, process.seen), ""))), None)
            assert url is not None, f"florence2 web ended: {''.join(process.seen)}"
            # Read on, or the process would wait until somebody does.
            readers += [
                threading.Thread(target=target.extend, args=(stream,))
                for stream, target in ((process.stderr, process.seen), (process.stdout, process.log))
            ]
            for reader in readers:
                reader.start()
            yield url, process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()
            for reader in readers:
                reader.join(STOP_SECONDS)


def _kept(stream, lines: list[str]) -> str:
    lines.append(stream.readline())
    return lines[-1]


def _url(line: str) -> str | None:
    found = re.search(r"http://\S+:\d+", line)
    return found and found[0]


@pytest.fixture(scope="session")
def door_url(server):
    """The URL of `florence2 web`, a real process in front of the real server."""
    with web_process("--url", server.grpc_url) as (url, _):
        yield url


@pytest.fixture(scope="session")
def scene() -> bytes:
    """A red circle, a green triangle, a blue square, and the words CAFE and OPEN, as a PNG file."""
    return EXAMPLE_SCENE.read_bytes()
