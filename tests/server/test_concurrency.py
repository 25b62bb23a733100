"""Many callers at once: every answer is right, an error is one caller's own, the short overtake the long."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import tritonclient.grpc as triton
from florence2.v1 import GenerationOptions, TaskRequest, TaskResponse
from tritonclient.utils import InferenceServerException

from tests.reference import TASKS, assert_equal_but_for_ties, png
from tests.server.conftest import ask, tensors
from training.sampling import sample_scene
from training.scenes import draw

LONG = GenerationOptions(min_new_tokens=900, no_repeat_ngram_size=0)
GRID_SEEDS = range(20, 24)


@pytest.fixture(scope="module")
def scenes() -> list[bytes]:
    return [png(draw(sample_scene(seed))) for seed in GRID_SEEDS]


@pytest.fixture(scope="module")
def questions(reference, scenes):
    """Every task about every scene, with answers of very different lengths and with different rules."""
    lengths = itertools.cycle([300, 5, 40, 120, 12])
    rules = itertools.cycle([{}, {}, {"repetition_penalty": 1.4}])
    grid = itertools.product(scenes, TASKS)
    return [reference.question(scene, task, {"max_new_tokens": next(lengths), **next(rules)}) for scene, task in grid]


def test_64_mixed_requests_at_once_are_all_answered_as_alone(plain_client, reference, questions):
    assert len(questions) == 64
    all_here = threading.Barrier(len(questions))

    def ask_with_the_others(question):
        all_here.wait(30)
        return ask(plain_client, question.image, question.request)

    with ThreadPoolExecutor(len(questions)) as callers:
        responses = list(callers.map(ask_with_the_others, questions))
    texts = [response.text for response in responses]
    assert_equal_but_for_ties(questions, texts, [reference.text(question) for question in questions])


def test_bad_requests_in_a_batch_harm_none_of_the_good_ones(plain_client, reference, questions):
    good = [(question.image, question.request.SerializeToString()) for question in questions[:12]]
    bad = [(good[0][0], b"\xff\xff"), (b"no image", good[0][1]), (good[0][0], b""), (good[0][0][:300], good[1][1])] * 3
    mixed = [pair for pairs in zip(good, bad, strict=True) for pair in pairs]
    all_here = threading.Barrier(len(mixed))

    def outcome(pair):
        all_here.wait(30)
        try:
            return plain_client.infer("florence2", tensors([pair[0]], [pair[1]]))
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(mixed)) as callers:
        outcomes = list(callers.map(outcome, mixed))
    for failure in outcomes[1::2]:
        assert failure.status() == "StatusCode.INVALID_ARGUMENT"
    texts = [TaskResponse.FromString(result.as_numpy("RESPONSE")[0, 0]).text for result in outcomes[0::2]]
    asked = questions[: len(good)]
    assert_equal_but_for_ties(asked, texts, [reference.text(question) for question in asked])


def test_a_short_request_overtakes_a_long_one_that_started_before_it(server, scenes):
    with triton.InferenceServerClient(server.grpc_url) as client:
        order: list[str] = []

        def run(name: str, request: TaskRequest) -> None:
            ask(client, scenes[0], request)
            order.append(name)

        long = threading.Thread(target=run, args=("long", TaskRequest(ocr={}, generation=LONG)))
        long.start()
        time.sleep(0.3)  # the long one is decoding by now; it takes seconds
        run("short", TaskRequest(caption={}, generation={"max_new_tokens": 3}))
        long.join()
    assert order == ["short", "long"]


def test_one_image_asked_twice_at_once_is_embedded_once(server, image_file):
    """Sixteen questions that arrive together about an image nobody has seen; one of them pays for its embedding."""
    image = image_file(seed=99)
    # Long answers, so that the first is still under way when the last question arrives.
    requests = [TaskRequest(caption={}, generation={"min_new_tokens": 300 + n}) for n in range(16)]
    with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(16) as callers:
        responses = list(callers.map(partial(ask, client, image), requests))
    assert [response.usage.image_embedding_cached for response in responses].count(False) == 1


# Tritonserver crashed in one of ten rounds while responses, cancellations and metrics could reach it at the same time.
TIMES_LEFT = 6


def test_callers_who_leave_free_their_slots(server, scenes):
    with triton.InferenceServerClient(server.grpc_url) as client:
        leave = TaskRequest(ocr={}, generation=LONG)

        def give_up(number: int) -> str:
            request = TaskRequest(prompt=f"question {number}", generation=LONG)
            with pytest.raises(InferenceServerException) as error:
                ask(client, scenes[0], request, client_timeout=0.5)
            return error.value.status()

        with ThreadPoolExecutor(32) as callers:  # twice the slots
            for _ in range(TIMES_LEFT):
                assert set(callers.map(give_up, range(32))) == {"StatusCode.DEADLINE_EXCEEDED"}
        started = time.monotonic()
        ask(client, scenes[1], TaskRequest(caption={}, generation={"max_new_tokens": 2}))
        freed = time.monotonic() - started
        started = time.monotonic()
        ask(client, scenes[0], leave)
        long = time.monotonic() - started
    assert freed < long, "the slots were not freed before their answers were whole"


def test_the_queues_timeout_refuses_a_request_whose_caller_cannot_wait(start_server, scenes):
    server = start_server(FLORENCE2_SLOTS="1")
    busy_options = GenerationOptions(min_new_tokens=100)
    with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(24) as callers:
        busy = [
            callers.submit(ask, client, scenes[0], TaskRequest(prompt=f"question {n}", generation=busy_options))
            for n in range(20)
        ]
        time.sleep(0.5)
        with pytest.raises(InferenceServerException) as error:
            ask(client, scenes[0], TaskRequest(caption={}), timeout=100_000)
        assert error.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
        for call in busy:
            call.result()
