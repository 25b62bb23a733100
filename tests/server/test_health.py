"""What a probe sees of a real server."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tritonclient.grpc as triton
from florence2 import Client
from florence2.v1 import TaskRequest

from tests.server.conftest import ask, children_of

PROBE = [sys.executable, "-c", "from florence2._cli import main; main()", "health"]
LOOK_SECONDS = 10


def health_of(server):
    with Client(server.grpc_url) as client:
        (health,) = client.health(timeout=LOOK_SECONDS)
    return health


def probe(server, *options: str) -> tuple[int, str]:
    finished = subprocess.run(
        [*PROBE, "--url", server.grpc_url, *options], capture_output=True, text=True, timeout=60, check=False
    )
    return finished.returncode, finished.stdout.strip()


def test_a_server_that_can_answer_is_healthy(server):
    health = health_of(server)
    assert (health.server_is_live, health.model_is_ready, health.engine) == (True, True, "running")
    assert probe(server, "--ready") == (0, "healthy: server live, model ready, engine running")


def test_health_is_told_while_the_models_queue_is_full(start_server, image_file):
    server = start_server(FLORENCE2_SLOTS="1")
    image = image_file()
    with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(40) as callers:
        long = [TaskRequest(prompt=f"question {n}", generation={"min_new_tokens": 60}) for n in range(40)]
        busy = [callers.submit(ask, client, image, request) for request in long]
        healths = [health_of(server) for _ in range(3)]
        assert not all(call.done() for call in busy)
    assert {health.engine for health in healths} == {"running"}


def test_a_dead_stub_is_found_though_triton_says_that_all_is_well(start_server):
    server = start_server(FLORENCE2_SLOTS="1")
    (stub,) = [child for child in children_of(server.process_id) if runs_model(child)]
    os.kill(stub, signal.SIGKILL)
    health = health_of(server)
    assert (health.server_is_live, health.engine, health.is_alive) == (True, "unreachable", False)
    assert probe(server)[0] == 1


def runs_model(process_id: int) -> bool:
    arguments = Path(f"/proc/{process_id}/cmdline").read_bytes().split(b"\0")
    return b"stub" in arguments[0] and arguments[1].endswith(b"florence2/1/model.py")
