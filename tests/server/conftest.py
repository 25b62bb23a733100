"""A real tritonserver, for all tests of this folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest, TaskResponse
from florence2_server.tritonserver import Ports, TritonServer

from tests.cli.commands import florence2

__all__ = ["florence2"]

START_SECONDS = 180
CALL_SECONDS = 120


@contextmanager
def server_starter(tmp_path_factory):
    """A function that starts a server with flags and settings and waits until it is ready; all are stopped at the end.

    A server's attribute `log_file` is the path of its log.
    """
    running: list[TritonServer] = []

    def start(*flags: str, **environment: str) -> TritonServer:
        log_file = tmp_path_factory.mktemp("tritonserver") / "log.txt"
        with log_file.open("wb") as log:
            server = TritonServer(environment=environment, log=log, flags=flags)
            server.log_file = log_file
            running.append(server)
            server.start()
        server.wait_until_ready(START_SECONDS)
        return server

    try:
        yield start
    finally:
        for server in running:  # all stop at the same time
            server.terminate()
        for server in running:
            server.stop()


@pytest.fixture(scope="session")
def start_server(start_real_server):
    """`start_server(*flags, **environment)`: start a server that runs until the end of the session."""
    return start_real_server


@pytest.fixture(scope="session")
def server(real_server) -> TritonServer:
    """The server as the repository ships it: demo checkpoint, default settings."""
    return real_server


@pytest.fixture(scope="session")
def _one_slot(start_server) -> TritonServer:
    return start_server(FLORENCE2_SLOTS="1", FLORENCE2_AHEAD="0", FLORENCE2_MAX_TASKS="60")


@pytest.fixture
def one_slot(_one_slot) -> TritonServer:
    """A server that answers one request at a time, and has none left from the previous test."""
    from tests.server.observation import metric, seconds_until

    names = ("florence2_slots_in_use", "florence2_waiting_requests")
    seconds_until(lambda: all(metric(_one_slot, name) == 0 for name in names))
    return _one_slot


@pytest.fixture(scope="session")
def short_queue(start_server) -> TritonServer:
    """A server that answers one request at a time, while one more waits. It refuses others."""
    return start_server(FLORENCE2_SLOTS="1", FLORENCE2_AHEAD="0", FLORENCE2_QUEUE_REQUESTS="1")


@pytest.fixture
def doomed_server(start_server) -> Iterator[TritonServer]:
    """A server of its own, parts of which a test kills."""
    server = start_server(FLORENCE2_SLOTS="1")
    yield server
    # Asked to stop, it would wait for that part for a minute.
    server.process.kill()
    server.stop()


@pytest.fixture(scope="session")
def plain_client(server):
    """A tritonclient, without the florence2 client."""
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


def tensors(images: list[bytes], requests: list[bytes]) -> list[triton.InferInput]:
    """The tensors IMAGE and REQUEST, of shape (batch elements, 1)."""
    inputs = []
    for name, elements in (("IMAGE", images), ("REQUEST", requests)):
        tensor = triton.InferInput(name, [len(elements), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(elements, dtype=np.object_).reshape(-1, 1))
        inputs.append(tensor)
    return inputs


def infer(client: triton.InferenceServerClient, image: bytes, request: TaskRequest, **options) -> TaskResponse:
    """Send one request with tritonclient. Returns its response."""
    options.setdefault("client_timeout", CALL_SECONDS)
    result = client.infer("florence2", tensors([image], [request.SerializeToString()]), **options)
    return TaskResponse.FromString(result.as_numpy("RESPONSE")[0, 0])


def children_of(process_id: int) -> list[int]:
    """The process ids of all descendants of a process."""
    return sorted(child.pid for child in psutil.Process(process_id).children(recursive=True))


def port_options(ports: Ports) -> list[str]:
    """The options of `florence2-server serve` for these ports."""
    return [f"--{name.replace('_', '-')}-port={port}" for name, port in asdict(ports).items()]


def wait_until_ready(port: int) -> None:
    """Wait for a server on this machine by its gRPC port."""
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for _ in range(START_SECONDS * 10):
            try:
                if client.is_server_ready():
                    return
            except triton.InferenceServerException:
                pass
            time.sleep(0.1)
    raise AssertionError("the server was not ready in time")
