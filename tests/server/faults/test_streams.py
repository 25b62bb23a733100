"""Streams while engines are killed, and callers that leave them."""

import base64
import http.client
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tritonclient.grpc as triton
from florence2.v1 import GenerationOptions, TaskRequest

from tests.reference import TASKS, png
from tests.server.conftest import infer
from tests.server.faults.stream_callers import StreamCallers
from tests.server.observation import engine_of, metric, seconds_until
from tests.server.streams import streaming
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = pytest.mark.faults

CALLERS = 32
KILLS = 10
ANSWERS_BETWEEN_KILLS = 20
LEAVING_CALLERS = 300
LONG = GenerationOptions(num_beams=1, min_new_tokens=300, max_new_tokens=300)


@pytest.fixture(scope="module")
def scene() -> bytes:
    return png(draw(sample_scene(34)))


@pytest.fixture(scope="module")
def requests() -> list[TaskRequest]:
    """Every task, greedy and with beams, and plans, with answers that are often under way when an engine is killed."""
    options = [GenerationOptions(num_beams=beams, min_new_tokens=60, max_new_tokens=90) for beams in (1, 3)]
    plans = [
        {"caption_grounding": {}},
        {"region_analysis": {"max_regions": 2}},
        {"task_list": {"tasks": [{"caption": {}}, {"ocr": {}}]}},
    ]
    return [
        TaskRequest(**each, generation=options[number % 2]) for number, each in enumerate([*TASKS, *TASKS[1:], *plans])
    ]


@pytest.fixture(scope="module")
def answers(server, scene, requests):
    """The unary answers, one request at a time."""
    with triton.InferenceServerClient(server.grpc_url) as client:
        return [infer(client, scene, request) for request in requests]


def test_streams_go_on_when_engines_are_killed(server, scene, requests, answers, figure):
    restarts = metric(server, "florence2_engine_restarts_total")
    interrupted = 0
    with StreamCallers(server, scene, requests, answers, CALLERS) as callers:
        for _ in range(KILLS):
            known = callers.complete
            seconds_until(lambda known=known: callers.complete >= known + ANSWERS_BETWEEN_KILLS)
            interrupted += callers.under_way
            os.kill(engine_of(server), signal.SIGKILL)
    callers.raise_errors()
    figure("kill -9 of the engine, 32 callers of streams: kills", KILLS)
    figure("streams, all of them complete and equal to their unary answers", callers.complete)
    figure("of them interrupted after their first event", interrupted)
    assert callers.wrong == []
    assert callers.complete == callers.started
    assert interrupted >= KILLS
    assert metric(server, "florence2_engine_restarts_total") == restarts + KILLS


def test_callers_that_leave_streams_free_their_slots(server, scene, requests, answers, figure):
    generator = random.Random(8)
    events = [generator.randrange(40) for _ in range(LEAVING_CALLERS)]

    def leave(number: int) -> None:
        with streaming(server, scene, TaskRequest(prompt=f"request {number}", generation=LONG)) as stream:
            if events[number] == 0:
                time.sleep(generator.random() / 10)  # before its first event, or soon after
            else:
                received = stream.events()
                for _ in range(events[number]):
                    next(received)

    with StreamCallers(server, scene, requests, answers, callers=4) as callers:
        with ThreadPoolExecutor(64) as leavers:
            list(leavers.map(leave, range(LEAVING_CALLERS)))
        freed = seconds_until(lambda: metric(server, "florence2_slots_in_use") <= 8)
        known = callers.complete
        seconds_until(lambda: callers.complete >= known + 8)
    callers.raise_errors()
    figure("callers that left streams", LEAVING_CALLERS)
    figure("seconds until their slots were free", freed, at_most=0.3)
    figure("streams of others meanwhile, all of them complete and correct", callers.complete)
    assert callers.wrong == []
    seconds_until(lambda: metric(server, "florence2_slots_in_use") == 0, limit=10)
    assert metric(server, "florence2_waiting_requests") == metric(server, "florence2_waiting_image_bytes") == 0


def test_the_slot_of_an_http_caller_that_leaves_is_free_at_the_latest_with_the_answer(server, scene, figure):
    request = {"ocr": {}, "generation": {"numBeams": 1, "minNewTokens": 1000}}
    body = {"IMAGE": base64.b64encode(scene).decode(), "REQUEST": json.dumps(request)}
    seconds = []
    for leaves in (False, True):
        begin = time.monotonic()
        connection = http.client.HTTPConnection(server.host, server.ports.http, timeout=60)
        connection.request("POST", "/v2/models/florence2_stream/generate_stream", json.dumps(body))
        with connection.getresponse() as response:
            assert response.readline().startswith(b"data: ")
            seconds_until(lambda: metric(server, "florence2_slots_in_use") == 1)
            if not leaves:
                response.read()
        connection.close()
        seconds_until(lambda: metric(server, "florence2_slots_in_use") == 0)
        seconds.append(time.monotonic() - begin)
    figure("a stream of 1,000 tokens over HTTP: seconds until its slot is free", seconds[0])
    figure("the same if the caller leaves after the first event", seconds[1])
