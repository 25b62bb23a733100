"""The health of a real server, as a probe sees it."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2 import Client
from florence2.v1 import TaskRequest
from florence2_server import __version__
from florence2_server.addresses import Ports
from florence2_server.config import EngineConfig
from florence2_server.repository import DEMO_CHECKPOINT
from florence2_server.tritonserver import StartError, TritonServer
from tritonclient.utils import InferenceServerException

from tests.server.conftest import CALL_SECONDS, START_SECONDS, children_of, infer

PROBE = [sys.executable, "-c", "from florence2.cli import main; main()", "health"]
TIMEOUT_SECONDS = 10


def health_of(server):
    with Client(server.grpc_url) as client:
        (health,) = client.health(timeout=TIMEOUT_SECONDS)
    return health


def probe(server, *options: str) -> tuple[int, str]:
    finished = subprocess.run(
        [*PROBE, "--url", server.grpc_url, *options], capture_output=True, text=True, timeout=60, check=False
    )
    return finished.returncode, finished.stdout.strip()


def test_a_server_that_can_answer_is_healthy(server):
    health = health_of(server)
    assert (health.server_is_live, health.model_is_ready, health.engine) == (True, True, "running")
    status, line = probe(server, "--ready")
    assert (status, line.split(";")[0]) == (0, "healthy: server live, model ready, engine running")


def test_a_server_says_what_it_serves(server):
    with Client(server.grpc_url) as client:
        (info,) = client.server_info(timeout=TIMEOUT_SECONDS)
    (engine,) = info.engines
    assert (info.url, info.version, info.model) == (server.grpc_url, __version__, "florence2")
    assert (engine.name, engine.state, engine.revision, engine.layout) == ("0", "running", "", "native")
    assert (engine.checkpoint, engine.device, engine.dtype) == (str(DEMO_CHECKPOINT), "cpu", "float32")
    assert engine.slots == EngineConfig.slots
    served = f"{DEMO_CHECKPOINT} (native layout) on cpu in float32 with {engine.slots} slots"
    expected = f"florence2-triton {__version__} serves {served}"
    assert probe(server)[1].split("; ")[1] == expected


def test_a_port_in_use_ends_the_start_with_its_reason(server, tmp_path):
    ports = replace(Ports.free(), health=server.ports.health)
    reason = r"^health_port: cannot listen on 127\.0\.0\.1 port .*: Address already in use$"
    with (
        (tmp_path / "log.txt").open("wb") as log,
        TritonServer(ports, log=log) as failing,
        pytest.raises(StartError, match=reason),
    ):
        failing.wait_until_ready(START_SECONDS)


def test_health_is_available_while_the_models_queue_is_full(short_queue, image_file):
    """Callers send requests for as long as the health is queried, most of which are refused."""
    image, is_full, is_over = image_file(), threading.Event(), threading.Event()
    request = TaskRequest(caption={}, generation={"min_new_tokens": 60, "max_new_tokens": 60})

    def call(client: triton.InferenceServerClient) -> None:
        while not is_over.is_set():
            try:
                infer(client, image, request)
            except InferenceServerException as error:
                if "queue_requests" not in str(error):
                    raise
                is_full.set()
                is_over.wait(0.1)

    with triton.InferenceServerClient(short_queue.grpc_url) as client, ThreadPoolExecutor(12) as callers:
        try:
            calls = [callers.submit(call, client) for _ in range(12)]
            assert is_full.wait(CALL_SECONDS)
            healths = [health_of(short_queue) for _ in range(3)]
        finally:
            is_over.set()
        for each in calls:
            each.result()
    assert {health.engine for health in healths} == {"running"}


def test_a_killed_stub_is_detected_although_triton_reports_the_model_ready(doomed_server):
    (stub,) = [child for child in children_of(doomed_server.process_id) if runs_model(child)]
    os.kill(stub, signal.SIGKILL)
    health = health_of(doomed_server)
    assert (health.server_is_live, health.engine, health.is_alive) == (True, "unreachable", False)
    assert probe(doomed_server)[0] == 1


def runs_model(process_id: int) -> bool:
    arguments = Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")
    return b"stub" in arguments[0] and arguments[1].endswith(b"florence2/1/model.py")
