"""A real tritonserver, for all tests of this folder."""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest, TaskResponse
from serve import TritonServer

START_SECONDS = 180
CALL_SECONDS = 120


@contextmanager
def server_starter(tmp_path_factory):
    """Starts servers with flags and settings, and waits until each is ready; stops them all at the end.

    The log of a server is its attribute `log_file`.
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
        for server in running:
            server.stop()


@pytest.fixture(scope="session")
def start_server(tmp_path_factory):
    """Starts a server that lives until the last test is over."""
    with server_starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def server(start_server) -> TritonServer:
    """The server as the repository ships it: demo checkpoint, default settings."""
    return start_server()


@pytest.fixture(scope="session")
def plain_client(server):
    """tritonclient, without anything of ours."""
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


def tensors(images: list[bytes], requests: list[bytes]) -> list[triton.InferInput]:
    """IMAGE and REQUEST tensors of shape (rows, 1)."""
    inputs = []
    for name, rows in (("IMAGE", images), ("REQUEST", requests)):
        tensor = triton.InferInput(name, [len(rows), 1], "BYTES")
        tensor.set_data_from_numpy(np.array(rows, dtype=np.object_).reshape(-1, 1))
        inputs.append(tensor)
    return inputs


def ask(client: triton.InferenceServerClient, image: bytes, request: TaskRequest, **options) -> TaskResponse:
    """One question through tritonclient."""
    options.setdefault("client_timeout", CALL_SECONDS)
    result = client.infer("florence2", tensors([image], [request.SerializeToString()]), **options)
    return TaskResponse.FromString(result.as_numpy("RESPONSE")[0, 0])


def children_of(process_id: int) -> list[int]:
    """Process ids of all descendants."""
    direct = [int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    for task in Path(f"/proc/{process_id}/task").iterdir():
        direct += [int(child) for child in (task / "children").read_text().split()]
    return sorted({*direct, *(grandchild for child in set(direct) for grandchild in children_of(child))})
