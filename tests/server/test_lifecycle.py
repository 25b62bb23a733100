"""Starting, failing to start, and stopping."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from florence2_server.tritonserver import Ports, StartError, TritonServer

from tests.reference import png
from tests.server.conftest import START_SECONDS, children_of, infer, port_options, wait_until_ready
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub
STOP_SECONDS = 30


def error_of_failing_server(folder: Path, environment: dict[str, str]) -> str:
    """Why a server did not become ready, which its log says too."""
    with (
        (folder / "log.txt").open("wb") as log,
        TritonServer(environment=environment, log=log) as server,
        pytest.raises(StartError) as error,
    ):
        server.wait_until_ready(START_SECONDS)
    reason = str(error.value)
    assert any(reason in line for line in (folder / "log.txt").read_text(errors="replace").splitlines())
    return reason


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_nothing_is_left_after_sigterm(start_server, tmp_path_factory, busy):
    sockets = tmp_path_factory.mktemp("s")
    server = start_server(TMPDIR=str(sockets))
    descendants = children_of(server.process_id)
    assert len(descendants) >= 7, "three stubs with a watchdog each, and the engine"
    assert len(list(sockets.iterdir())) == 2, "one folder for the engine, one for the stubs"
    shared_memory = shared_memory_of([server.process_id, *descendants])
    assert len(shared_memory) >= 3, "tritonserver shares memory with each stub"
    if busy:
        with triton.InferenceServerClient(server.grpc_url) as client:
            request = TaskRequest(ocr={}, generation={"min_new_tokens": 200})
            assert infer(client, png(draw(sample_scene(1))), request).usage.generated_tokens >= 200
    server.stop()
    assert [child for child in descendants if Path(f"/proc/{child}").exists()] == []
    assert list(sockets.iterdir()) == []
    assert [file for file in shared_memory if file.exists()] == []


def shared_memory_of(processes: list[int]) -> set[Path]:
    """The files of shared memory that processes have mapped. Other servers on the machine have some of their own."""
    maps = "".join(Path(f"/proc/{process}/maps").read_text() for process in processes)
    return {Path(file) for file in re.findall(rf"{SHARED_MEMORY}/\S+", maps)}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FLORENCE2_CHECKPOINT": "/nowhere/at/all"}, "checkpoint '/nowhere/at/all': no such folder"),
        ({"FLORENCE2_SLOT": "4"}, "FLORENCE2_SLOT: no such variable, did you mean FLORENCE2_SLOTS?"),
        ({"FLORENCE2_SLOTS": "none"}, "slots: got 'none', expected a whole number"),
        ({"FLORENCE2_DTYPE": "int3"}, "dtype: got 'int3', expected one of auto, float32, bfloat16, float16"),
    ],
)
def test_a_server_that_cannot_serve_never_becomes_ready_and_says_why_in_one_line(tmp_path, environment, message):
    assert message in error_of_failing_server(tmp_path, environment)


def test_a_truncated_checkpoint_is_named(tmp_path, random_checkpoint):
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    error = error_of_failing_server(tmp_path, {"FLORENCE2_CHECKPOINT": str(folder)})
    assert error.startswith(f"checkpoint '{folder}' cannot be loaded")


def test_another_checkpoint_is_served_by_the_same_code(start_server, random_checkpoint, image_file):
    server = start_server(FLORENCE2_CHECKPOINT=str(random_checkpoint), FLORENCE2_SLOTS="2")
    with triton.InferenceServerClient(server.grpc_url) as client:
        response = infer(client, image_file(), TaskRequest(caption={}, generation={"max_new_tokens": 7}))
    assert response.usage.generated_tokens == 7


@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGTERM])
def test_serve_runs_in_the_foreground_until_it_is_signaled(stop_signal):
    ports = Ports.free()
    command = [sys.executable, "-m", "florence2_server"]
    with subprocess.Popen(
        [*command, *port_options(ports)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until_ready(ports.grpc)
            descendants = children_of(process.pid)
            process.send_signal(stop_signal)
            assert process.wait(STOP_SECONDS) == 0
        finally:
            process.kill()
    assert [child for child in descendants if Path(f"/proc/{child}").exists()] == []
