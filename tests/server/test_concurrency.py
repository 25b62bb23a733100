"""Many callers at once: every answer is exact, an error is its caller's alone, short requests overtake long ones."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import tritonclient.grpc as triton
from florence2.v1 import GenerationOptions, TaskRequest, TaskResponse
from tritonclient.utils import InferenceServerException

from tests.reference import TASKS, assert_equal_except_near_ties, png
from tests.server.conftest import infer, tensors
from tests.server.observation import metric_sum, seconds_until
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

LONG = GenerationOptions(min_new_tokens=900, no_repeat_ngram_size=0)
GRID_SEEDS = range(20, 24)


@pytest.fixture(scope="module")
def scenes() -> list[bytes]:
    return [png(draw(sample_scene(seed))) for seed in GRID_SEEDS]


@pytest.fixture(scope="module")
def cases(reference, scenes):
    """Every task on every scene, with answers of very different lengths and different logits processing."""
    lengths = itertools.cycle([300, 5, 40, 120, 12])
    rules = itertools.cycle([{}, {}, {"repetition_penalty": 1.4}])
    grid = itertools.product(scenes, TASKS)
    return [reference.case(scene, task, {"max_new_tokens": next(lengths), **next(rules)}) for scene, task in grid]


def test_64_mixed_requests_at_once_have_the_answers_of_each_alone(plain_client, reference, cases):
    assert len(cases) == 64
    all_ready = threading.Barrier(len(cases))

    def infer_with_the_others(case):
        all_ready.wait(30)
        return infer(plain_client, case.image, case.request)

    with ThreadPoolExecutor(len(cases)) as callers:
        responses = list(callers.map(infer_with_the_others, cases))
    texts = [response.text for response in responses]
    assert_equal_except_near_ties(cases, texts, [reference.text(case) for case in cases])


def test_invalid_requests_in_a_batch_do_not_affect_the_valid_ones(plain_client, reference, cases):
    good = [(case.image, case.request.SerializeToString()) for case in cases[:12]]
    bad = [(good[0][0], b"\xff\xff"), (b"no image", good[0][1]), (good[0][0], b""), (good[0][0][:300], good[1][1])] * 3
    mixed = [pair for pairs in zip(good, bad, strict=True) for pair in pairs]
    all_ready = threading.Barrier(len(mixed))

    def outcome(pair):
        all_ready.wait(30)
        try:
            return plain_client.infer("florence2", tensors([pair[0]], [pair[1]]))
        except InferenceServerException as error:
            return error

    with ThreadPoolExecutor(len(mixed)) as callers:
        outcomes = list(callers.map(outcome, mixed))
    for failure in outcomes[1::2]:
        assert failure.status() == "StatusCode.INVALID_ARGUMENT"
    texts = [TaskResponse.FromString(result.as_numpy("RESPONSE")[0, 0]).text for result in outcomes[0::2]]
    valid = cases[: len(good)]
    assert_equal_except_near_ties(valid, texts, [reference.text(case) for case in valid])


def test_a_short_request_overtakes_a_long_one_that_started_before_it(server, scenes):
    with triton.InferenceServerClient(server.grpc_url) as client:
        order: list[str] = []

        def run(name: str, request: TaskRequest) -> None:
            infer(client, scenes[0], request)
            order.append(name)

        long = threading.Thread(target=run, args=("long", TaskRequest(ocr={}, generation=LONG)))
        long.start()
        time.sleep(0.3)  # the long one is decoding by now; it takes seconds
        run("short", TaskRequest(caption={}, generation={"max_new_tokens": 3}))
        long.join()
    assert order == ["short", "long"]


def test_an_image_in_several_requests_at_once_is_encoded_once(server, image_file):
    """Of sixteen requests that arrive together about a new image, one pays for its encoding."""
    image = image_file(seed=99)
    # Long answers, so that the first request is still decoding when the last one arrives.
    requests = [TaskRequest(caption={}, generation={"min_new_tokens": 300 + n}) for n in range(16)]
    with triton.InferenceServerClient(server.grpc_url) as client, ThreadPoolExecutor(16) as callers:
        responses = list(callers.map(partial(infer, client, image), requests))
    assert [response.usage.image_embedding_cached for response in responses].count(False) == 1


# Tritonserver crashed in one of ten rounds while responses, cancellations and metrics could reach it at the same time.
DISCONNECT_ROUNDS = 6


def test_callers_that_disconnect_free_their_slots(server, scenes):
    with triton.InferenceServerClient(server.grpc_url) as client:

        def give_up(number: int) -> str:
            request = TaskRequest(prompt=f"request {number}", generation=LONG)
            with pytest.raises(InferenceServerException) as error:
                infer(client, scenes[0], request, client_timeout=0.5)
            return error.value.status()

        with ThreadPoolExecutor(32) as callers:  # twice the slots
            for _ in range(DISCONNECT_ROUNDS):
                assert set(callers.map(give_up, range(32))) == {"StatusCode.DEADLINE_EXCEEDED"}
        started = time.monotonic()
        infer(client, scenes[1], TaskRequest(caption={}, generation={"max_new_tokens": 2}))
        freed = time.monotonic() - started
        started = time.monotonic()
        infer(client, scenes[0], TaskRequest(ocr={}, generation=LONG))
        long = time.monotonic() - started
    assert freed < long, "the slots were not freed before the answers were complete"


@pytest.mark.parametrize(
    ("request_timeout", "tritons_timeout"), [(0.2, None), (0, 200_000)], ids=["of the request", "of Triton"]
)
def test_a_request_whose_timeout_passes_while_it_waits_is_never_started(
    one_slot, scenes, request_timeout, tritons_timeout
):
    busy_options = GenerationOptions(min_new_tokens=100)
    before = counted(one_slot)
    with triton.InferenceServerClient(one_slot.grpc_url) as client, ThreadPoolExecutor(24) as callers:
        busy = [
            callers.submit(infer, client, scenes[0], TaskRequest(prompt=f"request {n}", generation=busy_options))
            for n in range(20)
        ]
        time.sleep(0.5)
        request = TaskRequest(detailed_caption={}, timeout_seconds=request_timeout)
        started = time.monotonic()
        with pytest.raises(InferenceServerException, match="deadline exceeded: the request was still waiting") as error:
            infer(client, scenes[0], request, timeout=tritons_timeout)
        assert error.value.status() == "StatusCode.UNAVAILABLE"
        assert time.monotonic() - started < 1
        for call in busy:
            call.result()
    seconds_until(lambda: counted(one_slot) == before + 1, limit=10)


def test_a_request_whose_timeout_passes_while_it_is_answered_frees_its_slot(one_slot, scenes):
    before = counted(one_slot)
    with triton.InferenceServerClient(one_slot.grpc_url) as client:
        with pytest.raises(InferenceServerException, match="deadline exceeded: the request was not answered"):
            infer(client, scenes[0], TaskRequest(detailed_caption={}, generation=LONG, timeout_seconds=0.3))
        started = time.monotonic()
        infer(client, scenes[0], TaskRequest(caption={}, generation={"max_new_tokens": 2}))
        assert time.monotonic() - started < 1
        # Triton's timeout limits the wait alone.
        assert infer(client, scenes[0], TaskRequest(ocr={}, generation={"min_new_tokens": 200}), timeout=100_000).text
    seconds_until(lambda: counted(one_slot) == before + 1, limit=10)


def counted(server) -> float:
    """The detailed captions whose deadline has passed."""
    return metric_sum(server, "florence2_requests_total", outcome="deadline_exceeded", task="detailed_caption")
