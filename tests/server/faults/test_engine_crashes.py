"""Engines killed, stopped, poisoned and without a checkpoint. Faults come from outside."""

import os
import re
import shutil
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import tritonclient.grpc as triton
from florence2 import Client
from florence2.v1 import TaskRequest
from tritonclient.utils import InferenceServerException

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.server.conftest import ask
from tests.server.faults.callers import Callers
from tests.server.looks import engine_of, is_alive, is_gone, metric, seconds_until

pytestmark = pytest.mark.faults

CALLERS = 64
KILLS = 10
ANSWERS_BETWEEN_KILLS = 20
HEARTBEAT_SECONDS = 3
POISON = "the poison"


@pytest.fixture(scope="module")
def server(start_server):
    """For the tests that leave a server as they find it: whole."""
    return start_server(FLORENCE2_HEARTBEAT_SECONDS=str(HEARTBEAT_SECONDS), FLORENCE2_TEST_ABORT_ON_PROMPT=POISON)


def test_engines_killed_under_64_callers_lose_nothing(server, questions, expected, figure):
    restarts = metric(server, "florence2_engine_restarts_total")
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
    loads = re.findall(r"another engine is ready after (\S+) s", server.log_file.read_text())
    load_seconds = [float(seconds) for seconds in loads[-KILLS:]]
    figure("seconds that these engines took to load, median", statistics.median(load_seconds))
    beyond = max(recovery - load for recovery, load in zip(recoveries, load_seconds, strict=True))
    figure("seconds of the first answer beyond loading, most", beyond, at_most=2)
    assert callers.wrong == []
    assert len(callers.answered_at) == callers.asked
    assert metric(server, "florence2_engine_restarts_total") == restarts + KILLS


def test_a_large_image_is_there_for_the_next_engine_too(server):
    """It reaches engines as a file, which exists until its request is answered."""
    image = np.asarray(PIL.Image.open(EXAMPLE_SCENE).convert("RGB").resize((1600, 1200)))
    request = TaskRequest(ocr={}, generation={"min_new_tokens": 300})
    killed = engine_of(server)
    with Client(server.grpc_url, timeout=120) as client, ThreadPoolExecutor(1) as callers:
        expected = client.run(image, request).text
        restarts = metric(server, "florence2_engine_restarts_total")
        answer = callers.submit(client.run, image, request)
        seconds_until(lambda: metric(server, "florence2_engine_running_requests") == 1)
        os.kill(killed, signal.SIGKILL)
        assert answer.result(120).text == expected
    assert metric(server, "florence2_engine_restarts_total") == restarts + 1


def test_an_engine_that_is_stopped_is_replaced(server, questions, expected, figure):
    engine = engine_of(server)
    with Callers(server, questions, expected, CALLERS) as callers:
        seconds_until(lambda: len(callers.answered_at) >= CALLERS)
        os.kill(engine, signal.SIGSTOP)
        detected = seconds_until(lambda: is_gone(engine))
        known = len(callers.answered_at)
        seconds_until(lambda: len(callers.answered_at) >= known + CALLERS)
    callers.outcomes()
    figure("SIGSTOP of the engine: seconds until it is replaced", detected, at_most=HEARTBEAT_SECONDS + 2)
    assert callers.wrong == []
    assert len(callers.answered_at) == callers.asked


def test_a_request_that_kills_the_engine_fails_alone(server, questions, expected, figure):
    good = list(zip(questions, expected, strict=True))[:32]
    assert len(good) == 32

    def outcome(question) -> str:
        with triton.InferenceServerClient(server.grpc_url) as client:
            try:
                return ask(client, question[0], question[1], request_id=question[2]).text
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"

    asked = [(question.image, question.request, "good") for question, _ in good]
    asked.insert(16, (good[0][0].image, TaskRequest(prompt=POISON), "the guilty one"))
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
