"""A real engine process, over its socket."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from florence2_server.config import EngineConfig
from florence2_server.supervision.engine_process import EngineProcess, EngineStartError
from florence2_server.v1.engine_pb2 import GenerateRequest, HeartbeatRequest, PromptPart

from tests.supervision.fleet import wait_for

START_AND_WAIT = """
import sys, time
from pathlib import Path
from florence2_server.supervision.engine_process import EngineProcess
from florence2_server.config import EngineConfig
engine = EngineProcess(EngineConfig(checkpoint=sys.argv[1], device="cpu", slots=2), Path(sys.argv[2]))
engine.wait_until_ready(60)
print(engine._process.pid, flush=True)
time.sleep(60)
"""


START_SECONDS = 60


def start(checkpoint: Path, sockets: Path) -> EngineProcess:
    """An engine that is ready."""
    engine = EngineProcess(EngineConfig(checkpoint=str(checkpoint), device="cpu", slots=2), sockets)
    try:
        engine.wait_until_ready(START_SECONDS)
    except EngineStartError:
        engine.stop()
        raise
    return engine


@pytest.fixture
def sockets(tmp_path_factory) -> Path:
    """The folder for the engines' sockets, in which a test sees what is left. Socket paths have to be short."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def engine(random_checkpoint, sockets):
    engine = start(random_checkpoint, sockets)
    yield engine
    engine.stop()


def test_an_engine_answers_over_its_private_socket(engine, sockets, image_file):
    (folder,) = sockets.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    request = GenerateRequest(
        image=image_file(30, 20), prompt=[PromptPart(text="Hello?")], generation={"max_new_tokens": 5}
    )
    completion = engine.stub.Generate(request, timeout=30)
    assert completion.text.startswith("</s><s>")
    assert (completion.image_size.width, completion.image_size.height) == (30, 20)
    assert completion.usage.generated_tokens == 5


def test_an_image_in_a_file_has_the_same_completion(engine, image_file, tmp_path):
    (tmp_path / "image").write_bytes(image_file())
    about = {"prompt": [PromptPart(text="Hello?")], "generation": {"max_new_tokens": 5}}
    completions = [
        engine.stub.Generate(GenerateRequest(**image, **about), timeout=30)
        for image in (
            {"image": image_file()},
            {"image_file": str(tmp_path / "image"), "image_file_bytes": len(image_file())},
        )
    ]
    assert completions[0].text == completions[1].text
    assert completions[1].usage.image_embedding_cached  # it is the same image


@pytest.mark.parametrize("kind", ["gone", "pipe", "folder", "another file"])
def test_an_unreadable_image_file_does_not_count_as_a_lost_engine(engine, tmp_path, kind):
    path = tmp_path / "image"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "another file":
        path.write_bytes(b"other")
    request = GenerateRequest(image_file=str(path), image_file_bytes=6, prompt=[PromptPart(text="Hello?")])
    with pytest.raises(grpc.RpcError) as error:
        engine.stub.Generate(request, timeout=10)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "image" in error.value.details()


def test_an_invalid_request_gets_invalid_argument_over_the_wire(engine):
    with pytest.raises(grpc.RpcError) as error:
        engine.stub.Generate(GenerateRequest(image=b"junk", prompt=[PromptPart(text="Hello?")]), timeout=30)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "IMAGE" in error.value.details()


def test_cancelled_calls_free_their_slots(engine, image_file):
    long = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"min_new_tokens": 1000})
    cancelled = [engine.stub.Generate.future(long) for _ in range(8)]  # four times the slots
    time.sleep(0.2)
    for call in cancelled:
        call.cancel()
    short = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"max_new_tokens": 2})
    assert engine.stub.Generate(short, timeout=30).usage.generated_tokens == 2


@pytest.mark.parametrize("beams", [1, 3])
def test_streamed_tokens_come_before_the_response_and_are_its_own(engine, image_file, beams):
    request = GenerateRequest(
        image=image_file(),
        prompt=[PromptPart(text="Hello?")],
        generation={"min_new_tokens": 150, "max_new_tokens": 200, "num_beams": beams},
    )
    events = list(engine.stub.GenerateStream(request, timeout=60))
    *messages, response = [getattr(event, event.WhichOneof("event")) for event in events]
    assert len(messages) > 1
    assert "".join(message.text for message in messages) == response.text
    assert [end for message in messages for end in message.token_ends] == list(response.token_ends)
    scores = [score for message in messages for score in message.token_log_probabilities]
    assert scores == list(response.token_log_probabilities)
    masses = [mass for message in messages for mass in message.token_masses]
    assert masses == list(response.token_masses)
    assert len(masses) == len(scores)
    assert {(message.image_size.width, message.image_size.height) for message in messages} == {(60, 40)}
    unary = engine.stub.Generate(request, timeout=60)
    assert (unary.text, unary.token_ends) == (response.text, response.token_ends)


def test_an_invalid_streamed_request_gets_invalid_argument(engine, tmp_path):
    with pytest.raises(grpc.RpcError) as error:
        list(engine.stub.GenerateStream(GenerateRequest(image=b"junk", prompt=[PromptPart(text="Hello?")]), timeout=30))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    lost_file = GenerateRequest(image_file=str(tmp_path / "gone"), prompt=[PromptPart(text="Hello?")])
    with pytest.raises(grpc.RpcError) as error:
        list(engine.stub.GenerateStream(lost_file, timeout=30))
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_cancelled_streams_free_their_slots(engine, image_file):
    long = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"min_new_tokens": 1000})
    cancelled = [engine.stub.GenerateStream(long) for _ in range(2)]  # all slots
    for call in cancelled:
        assert next(call).tokens.text
        call.cancel()
    short = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"max_new_tokens": 2})
    assert engine.stub.Generate(short, timeout=30).usage.generated_tokens == 2


def test_an_engine_accepts_as_many_requests_beyond_its_slots_as_it_is_set_to(engine, image_file):
    long = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"min_new_tokens": 1000})
    calls = [engine.stub.Generate.future(long) for _ in range(2 + EngineConfig.ahead)]
    wait_for(lambda: _load(engine) == (2, EngineConfig.ahead))
    for call in calls:
        call.cancel()
    wait_for(lambda: _load(engine) == (0, 0))


def _load(engine: EngineProcess) -> tuple[int, int]:
    """The numbers of generations that have a slot, and that wait for one."""
    heartbeat = engine.stub.Heartbeat(HeartbeatRequest(), timeout=10)
    return heartbeat.running_requests, heartbeat.waiting_requests


def test_nothing_is_left_after_stop(random_checkpoint, sockets):
    engine = start(random_checkpoint, sockets)
    process_id = engine._process.pid
    engine.stop()
    assert not Path(f"/proc/{process_id}").exists()
    assert list(sockets.iterdir()) == []


def test_calls_in_flight_end_when_the_engine_is_stopped(random_checkpoint, sockets, image_file):
    engine = start(random_checkpoint, sockets)
    long = GenerateRequest(image=image_file(), prompt=[PromptPart(text="Hello?")], generation={"min_new_tokens": 1000})
    call = engine.stub.Generate.future(long)
    time.sleep(0.3)
    engine.stop()
    assert call.exception(timeout=10).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_an_engine_that_cannot_start_gives_the_reason_in_one_line(tmp_path, sockets):
    with pytest.raises(EngineStartError, match="no such folder") as error:
        start(tmp_path / "nowhere", sockets)
    assert "\n" not in str(error.value)
    assert list(sockets.iterdir()) == []


def test_an_engine_without_a_folder_for_its_socket_does_not_start(sockets):
    sockets.rmdir()
    with pytest.raises(EngineStartError, match=r"folder for its socket cannot be created: .*No such file"):
        EngineProcess(EngineConfig(checkpoint="anything"), sockets)


def test_an_engine_whose_process_cannot_be_created_leaves_nothing(sockets, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineStartError, match=r"process cannot be created: .*/nowhere/python"):
        EngineProcess(EngineConfig(checkpoint="anything"), sockets)
    assert list(sockets.iterdir()) == []


def test_an_engine_that_takes_too_long_to_load_is_killed(random_checkpoint, sockets):
    engine = EngineProcess(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), sockets)
    with pytest.raises(EngineStartError, match=r"start_seconds: the checkpoint was not loaded within 0\.2 s"):
        engine.wait_until_ready(0.2)
    engine.stop()


def test_an_idle_engine_has_a_heartbeat(engine):
    assert engine.stub.Heartbeat(HeartbeatRequest(), timeout=10).seconds_without_progress == 0


def test_an_engine_does_not_outlive_a_killed_parent(random_checkpoint, sockets):
    command = [sys.executable, "-c", START_AND_WAIT, str(random_checkpoint), str(sockets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        engine = Path(f"/proc/{parent.stdout.readline().strip()}")
        alive = engine.exists()
        parent.kill()
    assert alive
    for _ in range(100):
        if not engine.exists() or "Z" in (engine / "stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    raise AssertionError("the engine is still there")


def test_signals_that_reach_all_processes_of_a_server_do_not_end_an_engine(engine):
    process = engine._process
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    engine.stub.Heartbeat(HeartbeatRequest(), timeout=30)
    engine.stop()
    assert process.returncode == 0


def test_an_engine_that_is_stopped_while_it_loads_ends_at_once(random_checkpoint, sockets):
    engine = EngineProcess(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), sockets)
    begin = time.monotonic()
    engine.stop()
    assert time.monotonic() - begin < 2
    assert engine.exit_status_within(0) == -signal.SIGKILL


def test_a_folder_too_deep_for_a_socket_is_named(random_checkpoint, tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with pytest.raises(
        EngineStartError, match=r"^socket: got a path of \d+ bytes, .*engine\.sock, expected at most 107"
    ):
        EngineProcess(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), deep)
    assert list(deep.iterdir()) == []


def test_an_engine_that_is_killed_while_it_loads_says_so(random_checkpoint, sockets):
    engine = EngineProcess(EngineConfig(checkpoint=str(random_checkpoint), device="cpu"), sockets)
    engine._process.kill()
    with pytest.raises(EngineStartError, match=r"^the engine process was killed by signal 9 before it was ready$"):
        engine.wait_until_ready(30)
    engine.stop()
