"""A real Chromium, and the web server that it visits."""

import contextlib
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from florence2 import AsyncClient
from florence2.testing import MockTransport
from florence2.web.app import make_app
from florence2.web.config import WebConfig
from florence2.web.models import Models

from tests.web.browser.playground import Playground

CHROMIUM = "/usr/bin/chromium"
START_SECONDS = 60


@pytest.fixture(scope="package")
def browser():
    """A browser. Playwright's event loop runs in this thread until it is closed: other packages need their own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, door_url):
    """`visit(url=..., **context)`: open the playground, by default in front of the real server.

    At the end of the test, there must have been no errors, no violations of the content security policy and no
    requests to other origins.
    """
    visits: list[Playground] = []

    def open_page(url: str | None = None, *, is_loaded: bool = True, **context) -> Playground:
        visits.append(Playground(browser, f"{url or door_url}/", **context))
        if is_loaded:
            visits[-1].wait_until_loaded()
        return visits[-1]

    yield open_page
    for each in visits:
        each.close()
    assert [fault for each in visits for fault in each.faults] == []


@contextmanager
def served(clients, **settings):
    """The app over clients by model, served by a thread. Yields its URL."""
    app = make_app(WebConfig(**settings), Models(clients))
    config = uvicorn.Config(app, port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)


@pytest.fixture
def serve_transport():
    """`serve_transport(transport, **settings)`: the URL of the app over a transport, or over a handler of a mock."""
    with contextlib.ExitStack() as stack:

        def serve(transport, **settings) -> str:
            actual = MockTransport(transport) if callable(transport) else transport
            return stack.enter_context(served({"florence2": AsyncClient(transport=actual)}, **settings))

        yield serve
