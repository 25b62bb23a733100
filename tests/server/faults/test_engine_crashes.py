"""Engines that are killed, stopped, crashed by a request, or without a checkpoint. All faults come from outside."""

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
from tests.server.conftest import infer
from tests.server.faults import poisoned_engine
from tests.server.faults.callers import Callers
from tests.server.observation import engine_of, is_alive, is_gone, metric, seconds_until

pytestmark = pytest.mark.faults

CALLERS = 64
KILLS = 10
ANSWERS_BETWEEN_KILLS = 20
HEARTBEAT_SECONDS = 3


@pytest.fixture(scope="module")
def server(start_server):
    """For the tests that leave the server as they find it."""
    return start_server(
        FLORENCE2_HEARTBEAT_SECONDS=str(HEARTBEAT_SECONDS), FLORENCE2_ENGINE_MODULE=poisoned_engine.__file__
    )


def test_no_request_of_64_callers_is_lost_when_engines_are_killed(server, cases, expected, figure):
    restarts = metric(server, "florence2_engine_restarts_total")
    recoveries = []
    with Callers(server, cases, expected, CALLERS) as callers:
        for _ in range(KILLS):
            known = len(callers.answered_at)
            seconds_until(lambda known=known: len(callers.answered_at) >= known + ANSWERS_BETWEEN_KILLS)
            killed = time.monotonic()
            os.kill(engine_of(server), signal.SIGKILL)
            # Answers that were on their way when the engine was killed arrive within this time.
            seconds_until(lambda killed=killed: callers.answered_at[-1] > killed + 0.5)
            recoveries.append(next(at for at in callers.answered_at if at > killed + 0.5) - killed)
    callers.raise_errors()
    figure("kill -9 of the engine, 64 callers: kills", KILLS)
    figure("answers, all of them correct", len(callers.answered_at))
    figure("seconds to the first answer after a kill, median", statistics.median(recoveries))
    figure("seconds to the first answer after a kill, maximum", max(recoveries))
    loads = re.findall(r"the new engine is ready after (\S+) s", server.log_file.read_text())
    load_seconds = [float(seconds) for seconds in loads[-KILLS:]]
    figure("seconds that these engines took to load, median", statistics.median(load_seconds))
    beyond = max(recovery - load for recovery, load in zip(recoveries, load_seconds, strict=True))
    figure("seconds of the first answer beyond loading, maximum", beyond, at_most=2)
    assert callers.wrong == []
    assert len(callers.answered_at) == callers.sent
    assert metric(server, "florence2_engine_restarts_total") == restarts + KILLS


def test_a_large_image_is_resubmitted_to_the_next_engine(server):
    """It reaches engines as a file, which exists until its request is answered."""
    image = np.asarray(PIL.Image.open(EXAMPLE_SCENE).convert("RGB").resize((1600, 1200)))
    # Takes several seconds, so that one of the heartbeats, one a second, sees it running.
    request = TaskRequest(ocr={}, generation={"min_new_tokens": 900})
    killed = engine_of(server)
    with Client(server.grpc_url, timeout=120) as client, ThreadPoolExecutor(1) as callers:
        expected = client.run(image, request).text
        restarts = metric(server, "florence2_engine_restarts_total")
        answer = callers.submit(client.run, image, request)
        seconds_until(lambda: metric(server, "florence2_engine_running_requests") == 1)
        os.kill(killed, signal.SIGKILL)
        assert answer.result(120).text == expected
    assert metric(server, "florence2_engine_restarts_total") == restarts + 1


def test_a_frozen_engine_is_replaced(server, cases, expected, figure):
    engine = engine_of(server)
    with Callers(server, cases, expected, CALLERS) as callers:
        seconds_until(lambda: len(callers.answered_at) >= CALLERS)
        os.kill(engine, signal.SIGSTOP)
        detected = seconds_until(lambda: is_gone(engine))
        known = len(callers.answered_at)
        seconds_until(lambda: len(callers.answered_at) >= known + CALLERS)
    callers.raise_errors()
    figure("SIGSTOP of the engine: seconds until it is replaced", detected, at_most=HEARTBEAT_SECONDS + 2)
    assert callers.wrong == []
    assert len(callers.answered_at) == callers.sent


def test_a_request_that_crashes_the_engine_fails_alone(server, cases, expected, figure):
    good = list(zip(cases, expected, strict=True))[:32]
    assert len(good) == 32

    def result(request) -> str:
        with triton.InferenceServerClient(server.grpc_url) as client:
            try:
                return infer(client, request[0], request[1], request_id=request[2]).text
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"

    requests = [(case.image, case.request, "good") for case, _ in good]
    requests.insert(16, (good[0][0].image, TaskRequest(prompt=poisoned_engine.POISON), "the poisoned one"))
    with ThreadPoolExecutor(len(requests)) as callers:
        results = list(callers.map(result, requests))
    failure = results.pop(16)
    correct = sum(map(str.__eq__, results, expected))
    figure("a request that crashes the engine: correct answers of 32 others", correct)
    assert results == [text for _, text in good]
    assert failure.startswith("StatusCode.INTERNAL: ")
    assert "the poisoned one" in failure
    assert "the poisoned one" in server.log_file.read_text()


def test_without_a_checkpoint_requests_are_rejected_until_it_is_back(start_server, tmp_path, cases, expected, figure):
    checkpoint, hidden = tmp_path / "checkpoint", tmp_path / "hidden"
    shutil.copytree(DEMO_CHECKPOINT, checkpoint)
    server = start_server(FLORENCE2_CHECKPOINT=str(checkpoint), FLORENCE2_MAX_BACKOFF_SECONDS="2")
    case = cases[0]
    with triton.InferenceServerClient(server.grpc_url) as client:

        def result() -> str:
            try:
                return infer(client, case.image, case.request).text
            except InferenceServerException as error:
                return f"{error.status()}: {error.message()}"

        checkpoint.rename(hidden)
        os.kill(engine_of(server), signal.SIGKILL)
        assert re.match(r"StatusCode\.UNAVAILABLE: .*no such folder", result())
        begin = time.monotonic()
        assert result().startswith("StatusCode.UNAVAILABLE")
        rejected = time.monotonic() - begin
        assert not is_alive(server)
        hidden.rename(checkpoint)
        recovered = seconds_until(lambda: not result().startswith("StatusCode.UNAVAILABLE"))
        assert result() == expected[0]
    assert is_alive(server)
    figure("no checkpoint: seconds to UNAVAILABLE", rejected, at_most=1)
    figure("checkpoint back: seconds to the first answer", recovered)
