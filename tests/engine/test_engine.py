"""The loop's order of work, shown with a runner that computes nothing."""

import threading
from concurrent.futures import CancelledError

import pytest
import torch
from florence2_engine.candidates import CandidateFinder
from florence2_engine.embeddings import EmbeddingCache
from florence2_engine.engine import Engine
from florence2_engine.errors import EngineClosedError
from florence2_engine.images import Image
from florence2_engine.request import Request
from florence2_engine.scheduler import Scheduler
from florence2_engine.search import start_search

from tests.engine.test_search import make_options

WORD = 5
WAIT = 10


class FakeRunner:
    """Always prefers the same word; remembers what it was asked, and can be held at a decode step."""

    def __init__(self) -> None:
        self.images_encoded: list[int] = []
        self.prefills: list[list[list[int]]] = []
        self.steps: list[list[int]] = []
        self.may_decode = threading.Event()
        self.may_decode.set()
        self.fails_on_prompt: list[int] | None = None
        self.failures: list[Exception] = [RuntimeError("no memory")]  # one after another; the last one again and again

    def encode_images(self, pixels):
        self.images_encoded.append(len(pixels))
        return [torch.zeros(1) for _ in pixels]

    def prefill(self, first_slot, embeddings, prompts):  # noqa: ARG002
        if self.fails_on_prompt in prompts:
            raise self.failures.pop(0) if len(self.failures) > 1 else self.failures[0]
        self.prefills.append(prompts)

    def decode_step(self, token_ids, positions, rows_of_slots):
        assert self.may_decode.wait(WAIT)
        assert sorted(row for rows in rows_of_slots for row in rows) == list(range(len(token_ids)))
        self.steps.append(positions)
        logits = torch.zeros(len(token_ids), 10)
        logits[:, WORD] = 1
        return logits

    def move_slot(self, source, target):
        pass

    def copy_row(self, source, target, first, end):
        pass


def engine_with(runner, slots: int = 4, prefill_batch: int = 2, cache_bytes: int = 0) -> Engine:
    scheduler = Scheduler(slots, rows=slots * 2, prefill_batch=prefill_batch, image_batch=prefill_batch)
    engine = Engine(runner, scheduler, CandidateFinder(0, 2), EmbeddingCache(cache_bytes))
    engine.start()
    return engine


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def engine(runner):
    engine = engine_with(runner)
    yield engine
    runner.may_decode.set()
    engine.close()


def request_of(tokens: int, image: Image | None = None, prompt: int = 0) -> Request:
    return Request(image or new_image(), [prompt], start_search(make_options(max_new_tokens=tokens), [prompt]))


def new_image() -> Image:
    return Image((1, 1), _pixels=torch.zeros(1))


def wait_for(condition) -> None:
    deadline = threading.Event()
    for _ in range(WAIT * 100):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("it did not happen in time")


def test_a_short_request_joins_and_leaves_while_a_long_one_runs(engine, runner):
    runner.may_decode.clear()
    long = request_of(200)
    engine.submit(long)
    wait_for(lambda: runner.prefills)
    short = request_of(3)
    engine.submit(short)
    runner.may_decode.set()
    assert len(short.future.result(WAIT).hypothesis.token_ids) == 4
    assert len(long.future.result(WAIT).hypothesis.token_ids) == 201
    rows = [len(positions) for positions in runner.steps]
    assert rows == [1, 2, 2, 2] + [1] * 196  # the short one cost no step of its own


def test_one_image_asked_twice_at_once_is_embedded_once(engine, runner):
    runner.may_decode.clear()
    engine.submit(request_of(2))
    wait_for(lambda: runner.prefills)
    image = new_image()
    twice = [request_of(2, image), request_of(2, image)]
    for request in twice:
        engine.submit(request)
    runner.may_decode.set()
    cached = [request.future.result(WAIT).image_embedding_cached for request in twice]
    assert cached == [False, True]
    assert runner.images_encoded == [1, 1]


def test_an_image_asked_about_again_is_not_encoded_again_while_the_cache_has_it(runner):
    engine = engine_with(runner, cache_bytes=4)
    image, other = new_image(), new_image()
    cached = []
    for each in (image, image, other, other):
        request = request_of(2, each)
        engine.submit(request)
        cached.append(request.future.result(WAIT).image_embedding_cached)
    engine.close()
    assert cached == [False, True, False, True]
    assert engine.embeddings.bytes == 4


def test_decode_steps_go_on_between_prefills(engine, runner):
    runner.may_decode.clear()
    requests = [request_of(6) for _ in range(4)]
    engine.submit(requests[0])
    wait_for(lambda: runner.prefills)
    for request in requests[1:]:
        engine.submit(request)
    runner.may_decode.set()
    for request in requests:
        request.future.result(WAIT)
    assert [len(prompts) for prompts in runner.prefills] == [1, 2, 1]
    assert [len(positions) for positions in runner.steps][:3] == [1, 3, 4]


def test_a_cancelled_request_gives_its_row_to_the_next(engine, runner):
    runner.may_decode.clear()
    long = [request_of(1000) for _ in range(4)]
    for request in long:
        engine.submit(request)
    next_one = request_of(2)
    engine.submit(next_one)
    wait_for(lambda: runner.prefills)
    long[1].future.cancel()
    runner.may_decode.set()
    next_one.future.result(WAIT)
    with pytest.raises(CancelledError):
        long[1].future.result(WAIT)
    assert not long[0].future.done()
    for request in long:
        request.future.cancel()


def test_a_request_cancelled_in_the_queue_is_never_encoded(engine, runner):
    runner.may_decode.clear()
    engine.submit(request_of(2))
    wait_for(lambda: runner.prefills)
    unwanted = request_of(2, prompt=99)
    unwanted.future.cancel()
    engine.submit(unwanted)
    last = request_of(2, prompt=1)
    engine.submit(last)
    runner.may_decode.set()
    last.future.result(WAIT)
    assert [[0]] in runner.prefills
    assert [99] not in [prompt for prompts in runner.prefills for prompt in prompts]


def test_a_failing_prefill_fails_its_requests_alone(engine, runner):
    runner.fails_on_prompt = [13]
    running = request_of(1000)
    engine.submit(running)
    wait_for(lambda: runner.steps)
    unlucky = request_of(2, prompt=13)
    engine.submit(unlucky)
    with pytest.raises(RuntimeError, match="no memory"):
        unlucky.future.result(WAIT)
    assert len(running.future.result(WAIT).hypothesis.token_ids) == 1001


def test_after_a_failed_prefill_its_requests_are_encoded_one_by_one(runner):
    engine = engine_with(runner, slots=4, prefill_batch=4)
    runner.fails_on_prompt = [13]
    first, requests = submitted_together(engine, runner, tokens=2)
    for request in (first, requests[0], requests[2]):
        assert len(request.future.result(WAIT).hypothesis.token_ids) == 3
    with pytest.raises(RuntimeError, match="no memory"):
        requests[1].future.result(WAIT)
    engine.close()
    assert runner.prefills == [[[0]], [[1]], [[2]]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_failure_while_requests_are_retried_one_by_one_fails_all_of_them(runner):
    engine = engine_with(runner, slots=4, prefill_batch=4)
    runner.fails_on_prompt = [13]
    runner.failures = [RuntimeError("no memory"), torch.AcceleratorError("CUDA error: an illegal memory access")]
    first, requests = submitted_together(engine, runner, tokens=1000)
    for request in (first, *requests):
        with pytest.raises(EngineClosedError):
            request.future.result(WAIT)


def submitted_together(engine: Engine, runner: FakeRunner, tokens: int) -> tuple[Request, list[Request]]:
    """A request that runs, and three that share the next prefill, of which the second has prompt 13."""
    runner.may_decode.clear()
    first = request_of(tokens)
    engine.submit(first)
    wait_for(lambda: runner.prefills)
    requests = [request_of(tokens, prompt=prompt) for prompt in (1, 13, 2)]
    for request in requests:
        engine.submit(request)
    runner.may_decode.set()
    return first, requests


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_that_failed_ends_the_engine_for_everybody(engine, runner):
    """After a CUDA error nothing works in this process any more: who watches over it has to start another."""
    running = request_of(1000)
    engine.submit(running)
    wait_for(lambda: runner.steps)
    runner.fails_on_prompt, runner.failures = [13], [torch.AcceleratorError("CUDA error: an illegal memory access")]
    unlucky, late = request_of(2, prompt=13), request_of(2)
    engine.submit(unlucky)
    for request in (running, unlucky):
        with pytest.raises(EngineClosedError):
            request.future.result(WAIT)
    engine.submit(late)
    with pytest.raises(EngineClosedError):
        late.future.result(WAIT)


def test_closing_fails_what_is_under_way(runner):
    engine = engine_with(runner, slots=1, prefill_batch=1)
    runner.may_decode.clear()
    requests = [request_of(1000), request_of(1000)]
    for request in requests:
        engine.submit(request)
    wait_for(lambda: runner.prefills)
    threading.Timer(0.05, runner.may_decode.set).start()
    engine.close()
    for request in requests:
        with pytest.raises(EngineClosedError):
            request.future.result(WAIT)


def test_a_closed_engine_answers_at_once_that_it_is_closed(runner):
    engine = engine_with(runner, slots=1, prefill_batch=1)
    engine.close()
    late = request_of(2)
    engine.submit(late)
    with pytest.raises(EngineClosedError):
        late.future.result(WAIT)
