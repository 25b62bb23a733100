"""Engines killed, stopped, poisoned and without a checkpoint; tritonserver killed. Faults come from outside."""

import os
import re
import shutil
import signal
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from tritonclient.utils import InferenceServerException

from tests.conftest import DEMO_CHECKPOINT
from tests.server.conftest import ask, children_of
from tests.server.faults.callers import Callers
from tests.server.looks import WAIT_SECONDS, engine_of, is_alive, is_gone, metric, seconds_until

pytestmark = pytest.mark.faults

CALLERS = 64
KILLS = 10
ANSWERS_BETWEEN_KILLS = 40
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub


def test_engines_killed_under_64_callers_lose_nothing(start_server, questions, expected, figure):
    server = start_server()
    recoveries = []
    with Callers(server, questions, expected, CALLERS) as callers:
        for _ in range(KILLS):
            known = len(callers.answered_at)
            seconds_until(lambda known=known: len(callers.answered_at) >= known + ANSWERS_BETWEEN_KILLS)
            killed = time.monotonic()
            os.kill(engine_of(server), signal.SIGKILL)
            # Answers that were on their way when the engine died arrive within this time.
            seconds_until(lambda killed=killed: callers.answered_at[-1] > killed + 0.5)
            recoveries.append(next(at for at in callers.answered_at if at > killed + 0.5) - killed)
    callers.outcomes()
    figure("kill -9 of the engine, 64 callers: kills", KILLS)
    figure("answers, all of them right", len(callers.answered_at))
    figure("seconds to the first answer after a kill, median", statistics.median(recoveries))
    figure("seconds to the first answer after a kill, most", max(recoveries))
    load_seconds = [float(s) for s in re.findall(r"another engine is ready after (\S+) s", server.log_file.read_text())]
    figure("seconds that these engines took to load, median", statistics.median(load_seconds))
    beyond = max(recovery - load for recovery, load in zip(recoveries, load_seconds, strict=True))
    figure("seconds of the first answer beyond loading, most", beyond, at_most=2)
    assert callers.wrong == []
    assert len(callers.answered_at) == callers.asked
    assert metric(server, "florence2_engine_restarts_total") == KILLS


def test_an_engine_that_is_stopped_is_replaced(start_server, questions, expected, figure):
    limit = 3
    server = start_server(FLORENCE2_HEARTBEAT_SECONDS=str(limit))
    engine = engine_of(server)
    with Callers(server, questions, expected, CALLERS) as callers:
        seconds_until(lambda: len(callers.answered_at) >= CALLERS)
        os.kill(engine, signal.SIGSTOP)
        detected = seconds_until(lambda: is_gone(engine))
        known = len(callers.answered_at)
        seconds_until(lambda: len(callers.answered_at) >= known + CALLERS)
    callers.outcomes()
    figure("SIGSTOP of the engine: seconds until it is replaced", detected, at_most=limit + 2)
    assert callers.wrong == []
    assert len(callers.answered_at) == callers.asked


def test_a_request_that_kills_the_engine_fails_alone(start_server, questions, expected, figure):
    server = start_server(FLORENCE2_TEST_ABORT_ON_PROMPT="the poison")
    good = list(zip(questions, expected, strict=True))[:32]
    assert len(good) == 32

    def outcome(question) -> str:
        with triton.InferenceServerClient(server.grpc_url) as client:
            try:
                return ask(client, question[0], question[1], request_id=question[2]).text
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"

    asked = [(question.image, question.request, "good") for question, _ in good]
    asked.insert(16, (good[0][0].image, TaskRequest(prompt="the poison"), "the guilty one"))
    with ThreadPoolExecutor(len(asked)) as callers:
        outcomes = list(callers.map(outcome, asked))
    failure = outcomes.pop(16)
    figure("a request that kills the engine: right answers of 32 others", sum(map(str.__eq__, outcomes, expected)))
    assert outcomes == [text for _, text in good]
    assert failure.startswith("StatusCode.INTERNAL: ")
    assert "the guilty one" in failure
    assert "the guilty one" in server.log_file.read_text()


def test_without_a_checkpoint_callers_are_refused_until_it_is_back(start_server, tmp_path, questions, expected, figure):
    checkpoint, hidden = tmp_path / "checkpoint", tmp_path / "hidden"
    shutil.copytree(DEMO_CHECKPOINT, checkpoint)
    server = start_server(FLORENCE2_CHECKPOINT=str(checkpoint), FLORENCE2_MAX_BACKOFF_SECONDS="2")
    question = questions[0]
    with triton.InferenceServerClient(server.grpc_url) as client:

        def outcome() -> str:
            try:
                return ask(client, question.image, question.request).text
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"

        checkpoint.rename(hidden)
        os.kill(engine_of(server), signal.SIGKILL)
        assert re.match(r"StatusCode\.UNAVAILABLE: .*no such folder", outcome())
        begin = time.monotonic()
        assert outcome().startswith("StatusCode.UNAVAILABLE")
        refused = time.monotonic() - begin
        assert not is_alive(server)
        hidden.rename(checkpoint)
        recovered = seconds_until(lambda: not outcome().startswith("StatusCode.UNAVAILABLE"))
        assert outcome() == expected[0]
    assert is_alive(server)
    figure("no checkpoint: seconds to UNAVAILABLE", refused, at_most=1)
    figure("checkpoint back: seconds to the first answer", recovered)


def test_an_engine_does_not_outlive_a_killed_tritonserver(start_server, figure):
    shared_memory = set(SHARED_MEMORY.iterdir())
    folders = set(Path(tempfile.gettempdir()).glob("florence2-[eh]*"))  # of engines and of health
    server = start_server()
    descendants = children_of(server.process_id)
    assert len(descendants) >= 2
    os.kill(server.process_id, signal.SIGKILL)
    seconds = seconds_until(lambda: all(map(is_gone, descendants)))
    figure("kill -9 of tritonserver: seconds until all is gone", seconds, at_most=5)
    seconds_until(lambda: set(SHARED_MEMORY.iterdir()) <= shared_memory)
    assert set(Path(tempfile.gettempdir()).glob("florence2-[eh]*")) <= folders


def test_sigterm_lets_accepted_requests_be_answered(start_server, questions, expected, figure):
    server = start_server()
    asked = list(zip(questions, expected, strict=True)) * 2
    all_sent = threading.Barrier(len(asked) + 1)

    def outcome(pair) -> str:
        with triton.InferenceServerClient(server.grpc_url) as client:
            all_sent.wait(WAIT_SECONDS)
            try:
                return "right" if ask(client, pair[0].image, pair[0].request).text == pair[1] else "wrong"
            except InferenceServerException as error:
                return str(error.status())

    with ThreadPoolExecutor(len(asked)) as callers:
        outcomes = [callers.submit(outcome, pair) for pair in asked]
        all_sent.wait(WAIT_SECONDS)
        time.sleep(0.1)
        begin = time.monotonic()
        server.stop()
        figure("SIGTERM under load: seconds until it is gone", time.monotonic() - begin)
        outcomes = [each.result() for each in outcomes]
    figure("SIGTERM under load: accepted requests answered", outcomes.count("right"))
    assert "wrong" not in outcomes
    # Who came after the signal is told so at once; nobody who was accepted is.
    assert set(outcomes) <= {"right", "StatusCode.UNAVAILABLE"}
    assert outcomes.count("right") > 0
