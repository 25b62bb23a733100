"""The order in which the loop works, with a runner that computes nothing."""

import threading
from concurrent.futures import CancelledError

import pytest
import torch
from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.embeddings import EmbeddingCache
from florence2_server.engine.engine import Engine
from florence2_server.engine.errors import EngineClosedError
from florence2_server.engine.generation import Generation
from florence2_server.engine.images.decoding import Image
from florence2_server.engine.scheduler import BatchLimits, Scheduler
from florence2_server.engine.searches import start_search

from tests.engine.test_search import make_options

PREFERRED_TOKEN = 5
WAIT = 10


class FakeRunner:
    """Always prefers the same token; records its calls, and can be paused at a decode step."""

    def __init__(self) -> None:
        self.images_encoded: list[int] = []
        self.prefills: list[list[list[int]]] = []
        self.steps: list[list[int]] = []
        self.may_decode = threading.Event()
        self.may_decode.set()
        self.fails_on_prompt: list[int] | None = None
        self.failures: list[Exception] = [RuntimeError("no memory")]  # raised in turn; the last one repeatedly
        self.fails_on_pixels: torch.Tensor | None = None

    def encode_images(self, pixels, adapter):  # noqa: ARG002
        if any(each is self.fails_on_pixels for each in pixels):
            raise RuntimeError("no memory for it")
        self.images_encoded.append(len(pixels))
        return [torch.zeros(1) for _ in pixels]

    def prefill(self, first_slot, embeddings, prompts, adapters):  # noqa: ARG002
        if self.fails_on_prompt in prompts:
            raise self.failures.pop(0) if len(self.failures) > 1 else self.failures[0]
        self.prefills.append(prompts)

    def decode_step(self, token_ids, positions, rows_of_slots, adapters):  # noqa: ARG002
        assert self.may_decode.wait(WAIT)
        assert sorted(row for rows in rows_of_slots for row in rows) == list(range(len(token_ids)))
        self.steps.append(positions)
        logits = torch.zeros(len(token_ids), 10)
        logits[:, PREFERRED_TOKEN] = 1
        return logits

    def move_slot(self, source, target):
        pass

    def copy_row(self, source, target, first, end):
        pass


def engine_with(runner, slots: int = 4, prefill_batch: int = 2, cache_bytes: int = 0, encoded_ahead: int = 0) -> Engine:
    limits = BatchLimits(slots, slots * 2, prefill_batch, image_batch=prefill_batch, encoded_ahead=encoded_ahead)
    engine = Engine(runner, Scheduler(limits), CandidateFinder(0, 2), EmbeddingCache(cache_bytes))
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


def generation_of(tokens: int, image: Image | None = None, prompt: int = 0) -> Generation:
    return Generation(image or new_image(), [prompt], start_search(make_options(max_new_tokens=tokens), [prompt]))


def new_image() -> Image:
    return Image((1, 1), _pixels=torch.zeros(1))


def wait_for(condition) -> None:
    deadline = threading.Event()
    for _ in range(WAIT * 100):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("it did not happen in time")


def test_a_short_generation_joins_and_leaves_the_batch_while_a_long_one_runs(engine, runner):
    runner.may_decode.clear()
    long = generation_of(200)
    engine.submit(long)
    wait_for(lambda: runner.prefills)
    short = generation_of(3)
    engine.submit(short)
    runner.may_decode.set()
    assert len(short.future.result(WAIT).token_ids) == 4
    assert len(long.future.result(WAIT).token_ids) == 201
    rows = [len(positions) for positions in runner.steps]
    assert rows == [1, 2, 2, 2] + [1] * 196  # the short one took no steps of its own


def test_two_generations_at_once_about_one_image_encode_it_once(engine, runner):
    runner.may_decode.clear()
    engine.submit(generation_of(2))
    wait_for(lambda: runner.prefills)
    image = new_image()
    generations = [generation_of(2, image), generation_of(2, image)]
    for generation in generations:
        engine.submit(generation)
    runner.may_decode.set()
    for generation in generations:
        generation.future.result(WAIT)
    assert [generation.image_embedding_cached for generation in generations] == [False, True]
    assert runner.images_encoded == [1, 1]


def test_an_image_in_the_cache_is_not_encoded_again(runner):
    engine = engine_with(runner, cache_bytes=4)
    image, other = new_image(), new_image()
    cached = []
    for each in (image, image, other, other):
        generation = generation_of(2, each)
        engine.submit(generation)
        generation.future.result(WAIT)
        cached.append(generation.image_embedding_cached)
    engine.close()
    assert cached == [False, True, False, True]
    assert engine.embedding_statistics.bytes == 4


def test_decode_steps_continue_between_prefills(engine, runner):
    runner.may_decode.clear()
    generations = [generation_of(6) for _ in range(4)]
    engine.submit(generations[0])
    wait_for(lambda: runner.prefills)
    for generation in generations[1:]:
        engine.submit(generation)
    runner.may_decode.set()
    for generation in generations:
        generation.future.result(WAIT)
    assert [len(prompts) for prompts in runner.prefills] == [1, 2, 1]
    assert [len(positions) for positions in runner.steps][:3] == [1, 3, 4]


def test_a_cancelled_generation_frees_its_slot_for_the_next(engine, runner):
    runner.may_decode.clear()
    long = [generation_of(1000) for _ in range(4)]
    for generation in long:
        engine.submit(generation)
    next_one = generation_of(2)
    engine.submit(next_one)
    wait_for(lambda: runner.prefills)
    long[1].future.cancel()
    runner.may_decode.set()
    next_one.future.result(WAIT)
    with pytest.raises(CancelledError):
        long[1].future.result(WAIT)
    assert not long[0].future.done()
    for generation in long:
        generation.future.cancel()


def test_a_generation_cancelled_in_the_queue_is_never_encoded(engine, runner):
    runner.may_decode.clear()
    engine.submit(generation_of(2))
    wait_for(lambda: runner.prefills)
    unwanted = generation_of(2, prompt=99)
    unwanted.future.cancel()
    engine.submit(unwanted)
    last = generation_of(2, prompt=1)
    engine.submit(last)
    runner.may_decode.set()
    last.future.result(WAIT)
    assert [[0]] in runner.prefills
    assert [99] not in [prompt for prompts in runner.prefills for prompt in prompts]


def test_a_failed_prefill_does_not_affect_running_generations(engine, runner):
    runner.fails_on_prompt = [13]
    running = generation_of(1000)
    engine.submit(running)
    wait_for(lambda: runner.steps)
    failing = generation_of(2, prompt=13)
    engine.submit(failing)
    with pytest.raises(RuntimeError, match="no memory"):
        failing.future.result(WAIT)
    assert len(running.future.result(WAIT).token_ids) == 1001


def test_after_a_failed_prefill_its_generations_are_retried_one_by_one(runner):
    engine = engine_with(runner, slots=4, prefill_batch=4)
    runner.fails_on_prompt = [13]
    first, generations = submitted_together(engine, runner, tokens=2)
    for generation in (first, generations[0], generations[2]):
        assert len(generation.future.result(WAIT).token_ids) == 3
    with pytest.raises(RuntimeError, match="no memory"):
        generations[1].future.result(WAIT)
    engine.close()
    assert runner.prefills == [[[0]], [[1]], [[2]]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_failure_during_one_by_one_retries_fails_all_generations(runner):
    engine = engine_with(runner, slots=4, prefill_batch=4)
    runner.fails_on_prompt = [13]
    runner.failures = [RuntimeError("no memory"), torch.AcceleratorError("CUDA error: an illegal memory access")]
    first, generations = submitted_together(engine, runner, tokens=1000)
    for generation in (first, *generations):
        with pytest.raises(EngineClosedError):
            generation.future.result(WAIT)


def submitted_together(engine: Engine, runner: FakeRunner, tokens: int) -> tuple[Generation, list[Generation]]:
    """A running generation, and three that share the next prefill, of which the second has prompt 13."""
    runner.may_decode.clear()
    first = generation_of(tokens)
    engine.submit(first)
    wait_for(lambda: runner.prefills)
    generations = [generation_of(tokens, prompt=prompt) for prompt in (1, 13, 2)]
    for generation in generations:
        engine.submit(generation)
    runner.may_decode.set()
    return first, generations


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_failure_closes_the_engine(engine, runner):
    """After a CUDA error nothing works in this process any more: the supervisor has to start another one."""
    running = generation_of(1000)
    engine.submit(running)
    wait_for(lambda: runner.steps)
    runner.fails_on_prompt, runner.failures = [13], [torch.AcceleratorError("CUDA error: an illegal memory access")]
    failing, late = generation_of(2, prompt=13), generation_of(2)
    engine.submit(failing)
    for generation in (running, failing):
        with pytest.raises(EngineClosedError):
            generation.future.result(WAIT)
    engine.submit(late)
    with pytest.raises(EngineClosedError):
        late.future.result(WAIT)


def test_closing_the_engine_fails_waiting_and_running_generations(runner):
    engine = engine_with(runner, slots=1, prefill_batch=1)
    runner.may_decode.clear()
    generations = [generation_of(1000), generation_of(1000)]
    for generation in generations:
        engine.submit(generation)
    wait_for(lambda: runner.prefills)
    threading.Timer(0.05, runner.may_decode.set).start()
    engine.close()
    for generation in generations:
        with pytest.raises(EngineClosedError):
            generation.future.result(WAIT)


def test_a_closed_engine_rejects_generations_at_once(runner):
    engine = engine_with(runner, slots=1, prefill_batch=1)
    engine.close()
    late = generation_of(2)
    engine.submit(late)
    with pytest.raises(EngineClosedError):
        late.future.result(WAIT)
