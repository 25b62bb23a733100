"""A real engine process, over its socket."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from florence2.engine.v1.engine_pb2 import GenerateRequest, HeartbeatRequest, PromptPart
from florence2_adapter.engine_process import EngineProcess, EngineStartError
from florence2_engine.config import EngineConfig

START_AND_WAIT = """
import sys, time
from pathlib import Path
from florence2_adapter.engine_process import EngineProcess
from florence2_engine.config import EngineConfig
engine = EngineProcess.start(EngineConfig(checkpoint=sys.argv[1], device="cpu", slots=2), Path(sys.argv[2]))
print(engine._process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def sockets(tmp_path_factory) -> Path:
    """Where engines make theirs, so that a test sees what is left. Paths of sockets have to be short."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def engine(random_checkpoint, sockets):
    engine = EngineProcess.start(EngineConfig(checkpoint=str(random_checkpoint), device="cpu", slots=2), sockets)
    yield engine
    engine.stop()


def test_an_engine_answers_over_its_private_socket(engine, sockets, image_file):
    (folder,) = sockets.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    request = GenerateRequest(
        image=image_file(30, 20), prompt=[PromptPart(text="Hello?")], generation={"max_new_tokens": 5}
    )
    answer = engine.stub.Generate(request, timeout=30)
    assert answer.text.startswith("</s><s>")
    assert (answer.image_size.width, answer.image_size.height) == (30, 20)
    assert answer.usage.generated_tokens == 5


def test_an_image_in_a_file_is_answered_like_the_image(engine, image_file, tmp_path):
    (tmp_path / "image").write_bytes(image_file())
    about = {"prompt": [PromptPart(text="Hello?")], "generation": {"max_new_tokens": 5}}
    answers = [
        engine.stub.Generate(GenerateRequest(**image, **about), timeout=30)
        for image in (
            {"image": image_file()},
            {"image_file": str(tmp_path / "image"), "image_file_bytes": len(image_file())},
        )
    ]
    assert answers[0].text == answers[1].text
    assert answers[1].usage.image_embedding_cached  # it is the same image


@pytest.mark.parametrize("kind", ["gone", "pipe", "folder", "another file"])
def test_an_image_file_that_cannot_be_read_is_no_sign_of_a_lost_engine(engine, tmp_path, kind):
    path = tmp_path / "image"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "another file":
        path.write_bytes(b"other")
    call = GenerateRequest(image_file=str(path), image_file_bytes=6, prompt=[PromptPart(text="Hello?")])
    with pytest.raises(grpc.RpcError) as error:
        engine.stub.Generate(call, timeout=10)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "image" in error.value.details()


def test_a_wrong_request_gets_invalid_argument_over_the_wire(engine):
    with pytest.raises(grpc.RpcError) as error:
        engine.stub.Generate(GenerateRequest(image=b"junk", prompt=[PromptPart(text="Hello?")]), timeout=30)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "IMAGE" in error.value.details()


def test_a_caller_that_leaves_frees_its_slots(engine, image_file):
    long = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"min_new_tokens": 1000})
    abandoned = [engine.stub.Generate.future(long) for _ in range(8)]  # four times the slots
    time.sleep(0.2)
    for call in abandoned:
        call.cancel()
    short = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"max_new_tokens": 2})
    assert engine.stub.Generate(short, timeout=30).usage.generated_tokens == 2


def test_nothing_is_left_after_stop(random_checkpoint, sockets):
    engine = EngineProcess.start(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), sockets)
    process_id = engine._process.pid
    engine.stop()
    assert not Path(f"/proc/{process_id}").exists()
    assert list(sockets.iterdir()) == []


def test_calls_under_way_end_when_the_engine_is_stopped(random_checkpoint, sockets, image_file):
    engine = EngineProcess.start(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), sockets)
    long = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"min_new_tokens": 1000})
    call = engine.stub.Generate.future(long)
    time.sleep(0.3)
    engine.stop()
    assert call.exception(timeout=10).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_an_engine_that_cannot_start_says_why_in_one_line(tmp_path, sockets):
    with pytest.raises(EngineStartError, match="no such folder") as error:
        EngineProcess.start(EngineConfig(checkpoint=str(tmp_path / "nowhere")), sockets)
    assert "\n" not in str(error.value)
    assert list(sockets.iterdir()) == []


def test_an_engine_without_a_place_for_its_socket_says_so(sockets):
    sockets.rmdir()
    with pytest.raises(EngineStartError, match=r"no folder for its socket: .*No such file"):
        EngineProcess(EngineConfig(checkpoint="anything"), sockets)


def test_an_engine_that_gets_no_process_says_so_and_leaves_nothing(sockets, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineStartError, match=r"no process: .*/nowhere/python"):
        EngineProcess(EngineConfig(checkpoint="anything"), sockets)
    assert list(sockets.iterdir()) == []


def test_an_engine_that_takes_too_long_to_load_is_ended(random_checkpoint, sockets):
    engine = EngineProcess(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), sockets)
    with pytest.raises(EngineStartError, match="exit status -9"):
        engine.wait_until_ready(limit=0.2)
    engine.stop()


def test_an_idle_engine_has_a_heartbeat(engine):
    assert engine.stub.Heartbeat(HeartbeatRequest(), timeout=10).seconds_without_progress == 0


def test_an_engine_does_not_outlive_a_killed_parent(random_checkpoint, sockets):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", START_AND_WAIT, str(random_checkpoint), str(sockets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        engine = Path(f"/proc/{parent.stdout.readline().strip()}")
        alive = engine.exists()
        parent.kill()
    assert alive
    for _ in range(100):
        if not engine.exists() or "Z" in (engine / "stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    raise AssertionError("the engine is still there")
