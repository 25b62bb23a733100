"""`florence2 web`, as an app of this process and as a real process in front of the real server."""

import io
import re
import subprocess
from contextlib import contextmanager

import PIL.Image
import pytest
from florence2 import AsyncClient
from florence2.testing import MockTransport, task_response
from florence2.web.app import make_app
from florence2.web.config import WebConfig
from florence2.web.models import Models
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


@pytest.fixture
def app_client():
    """`app_client(handler=..., transport=..., **settings)`: a client of the app over a mock, or another transport.

    The app's clients belong to one event loop, so each test client is entered, and left at the end of the test.
    """
    opened: list[TestClient] = []

    def open_client(handler=respond, transport=None, **settings) -> TestClient:
        models = Models({"florence2": AsyncClient(transport=transport or MockTransport(handler))})
        client = TestClient(make_app(WebConfig(**settings), models), base_url="http://localhost")
        opened.append(client.__enter__())
        return opened[-1]

    yield open_client
    for client in opened:
        client.__exit__(None, None, None)


@contextmanager
def web_process(*arguments: object):
    """`florence2 web` as a process of its own on a free port. Yields its URL and the process."""
    command = [*COMMAND, "web", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            seen = []
            for line in process.stderr:
                seen.append(line)
                if found := re.search(r"http://\S+:\d+", line):
                    break
            else:
                raise AssertionError(f"florence2 web ended: {''.join(seen)}")
            yield found[0], process
        finally:
            process.terminate()
            process.stderr.close()
            try:
                process.wait(STOP_SECONDS)
            finally:
                process.kill()


@pytest.fixture(scope="session")
def door_url(server):
    """The URL of `florence2 web`, a real process in front of the real server."""
    with web_process("--url", server.grpc_url) as (url, _):
        yield url


@pytest.fixture(scope="session")
def scene() -> bytes:
    """A red circle, a green triangle, a blue square, and the words CAFE and OPEN, as a PNG file."""
    return EXAMPLE_SCENE.read_bytes()
