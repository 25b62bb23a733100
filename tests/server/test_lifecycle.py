"""Starts, refusals to start, and a clean end."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from serve import REPOSITORY, Ports, ServerError, TritonServer

from tests.reference import png
from tests.server.conftest import START_SECONDS, ask, children_of
from training.sampling import sample_scene
from training.scenes import draw

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub
STOP_SECONDS = 30


def log_of_failing_server(folder: Path, environment: dict[str, str]) -> str:
    """Start a server that must not become ready."""
    with (
        (folder / "log.txt").open("wb") as log,
        TritonServer(environment=environment, log=log) as server,
        pytest.raises(ServerError, match="exit status"),
    ):
        server.wait_until_ready(START_SECONDS)
    return (folder / "log.txt").read_text(errors="replace")


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_nothing_is_left_after_sigterm(start_server, tmp_path_factory, busy):
    shared_memory = set(SHARED_MEMORY.iterdir())
    sockets = tmp_path_factory.mktemp("s")
    server = start_server(TMPDIR=str(sockets))
    descendants = children_of(server.process_id)
    assert len(descendants) >= 5, "two stubs, a guard of each, and the engine"
    assert len(list(sockets.iterdir())) == 2, "of the engine and of health"
    if busy:
        with triton.InferenceServerClient(server.grpc_url) as client:
            request = TaskRequest(ocr={}, generation={"min_new_tokens": 200})
            assert ask(client, png(draw(sample_scene(1))), request).usage.generated_tokens >= 200
    server.stop()
    assert [child for child in descendants if Path(f"/proc/{child}").exists()] == []
    assert list(sockets.iterdir()) == []
    assert set(SHARED_MEMORY.iterdir()) == shared_memory


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FLORENCE2_CHECKPOINT": "/nowhere/at/all"}, "checkpoint '/nowhere/at/all': no such folder"),
        ({"FLORENCE2_SLOTS": "none"}, "slots: got 'none', expected a whole number"),
        ({"FLORENCE2_DTYPE": "int3"}, "dtype: got 'int3', expected one of auto, float32, bfloat16, float16"),
    ],
)
def test_a_server_that_cannot_serve_never_becomes_ready_and_says_why_in_one_line(tmp_path, environment, message):
    log = log_of_failing_server(tmp_path, environment)
    assert any(message in line for line in log.splitlines())


def test_a_truncated_checkpoint_is_named(tmp_path, random_checkpoint):
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    log = log_of_failing_server(tmp_path, {"FLORENCE2_CHECKPOINT": str(folder)})
    assert any(f"checkpoint '{folder}' cannot be loaded" in line for line in log.splitlines())


def test_another_checkpoint_is_served_by_the_same_code(start_server, random_checkpoint, image_file):
    server = start_server(FLORENCE2_CHECKPOINT=str(random_checkpoint), FLORENCE2_SLOTS="2")
    with triton.InferenceServerClient(server.grpc_url) as client:
        response = ask(client, image_file(), TaskRequest(caption={}, generation={"max_new_tokens": 7}))
    assert response.usage.generated_tokens == 7


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_in_the_foreground_until_it_is_stopped(stop_signal):
    ports = Ports.free()
    command = [sys.executable, str(REPOSITORY / "serve.py")]
    flags = [f"--http-port={ports.http}", f"--grpc-port={ports.grpc}", f"--metrics-port={ports.metrics}"]
    with subprocess.Popen([*command, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_ready(ports.grpc)
            descendants = children_of(process.pid)
            process.send_signal(stop_signal)
            assert process.wait(STOP_SECONDS) == 0
        finally:
            process.kill()
    assert [child for child in descendants if Path(f"/proc/{child}").exists()] == []


def wait_until_ready(port: int) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for _ in range(START_SECONDS * 10):
            try:
                if client.is_server_ready():
                    return
            except triton.InferenceServerException:
                pass
            time.sleep(0.1)
    raise AssertionError("not ready in time")


def test_a_stray_folder_in_the_repository_is_no_model(start_server):
    stray = REPOSITORY / "__pycache__"  # what importing serve.py leaves there
    stray.mkdir(exist_ok=True)
    assert start_server(FLORENCE2_SLOTS="1").is_ready()
