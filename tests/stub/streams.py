"""Both ends of streams from stub to stub, over a real socket; both stubs are this process, and so have the same parent.

A test module loads the fixtures with `pytest_plugins = ["tests.stub.streams"]`. PYTEST_DONT_REWRITE: by then the
module has imported it, and pytest would warn that it can rewrite no assert here.
"""

import queue
import tempfile
import time

import numpy as np
import pytest
from florence2.v1 import StreamEvent, TaskRequest
from florence2_server.stub.forwarding import Forwarder
from florence2_server.stub.streaming_service import StreamingServer

WAIT_SECONDS = 30
BINARY_REQUEST = TaskRequest(caption={}).SerializeToString()


@pytest.fixture
def temporary_folder(tmp_path_factory, monkeypatch):
    """An empty folder for sockets, whose path is short enough for them."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Caller:
    """A streamed request as it comes from Triton, and what its caller gets.

    Attributes:
        events: the events, then None at the end.
        unread: the inputs that have not been read.
    """

    is_streamed = True

    def __init__(self, request: bytes = BINARY_REQUEST, image: bytes = b"an image", timeout: float | None = None):
        self.request_id, self.traceparent, self.queue_timeout = "its id", "its trace", timeout
        self.events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.cancelled = False
        self.unread = {"IMAGE": image, "REQUEST": request}

    def input(self, name: str):
        return np.array([self.unread.pop(name)], dtype=np.object_)

    def is_cancelled(self) -> bool:
        return self.cancelled

    def emit(self, event: bytes) -> None:
        self.events.put(event)

    def end(self) -> None:
        self.events.put(None)

    def next(self) -> bytes | None:
        return self.events.get(timeout=WAIT_SECONDS)

    def rest(self) -> list[bytes]:
        return list(iter(self.next, None))


class Arrivals:
    """A dispatcher that only notes the requests."""

    def __init__(self) -> None:
        self._arrived = queue.SimpleQueue()

    def dispatch(self, requests) -> None:
        for request in requests:
            self._arrived.put(request)

    def next(self):
        return self._arrived.get(timeout=WAIT_SECONDS)


@pytest.fixture
def arrivals() -> Arrivals:
    return Arrivals()


@pytest.fixture
def serve(temporary_folder):  # noqa: ARG001 - used by the servers
    """`serve(dispatcher, engine)`: serve streams until the end of the test."""
    servers = []

    def start(dispatcher, engine: str = "0") -> StreamingServer:
        servers.append(StreamingServer("florence2", engine, dispatcher))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def forwarder(temporary_folder):  # noqa: ARG001 - it finds the sockets there
    forwarder = Forwarder("florence2")
    yield forwarder
    forwarder.close()


def until(condition) -> None:
    for _ in range(WAIT_SECONDS * 100):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not become true")


def error_of(event: bytes) -> tuple[str, str]:
    error = StreamEvent.FromString(event).error
    return error.status, error.message
