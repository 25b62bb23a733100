"""Images that are encoded while all slots are taken."""

import pytest
from florence2_server.engine.engine import Engine
from florence2_server.engine.generation import Generation

from tests.engine.test_engine import WAIT, FakeRunner, engine_with, generation_of, new_image, wait_for


@pytest.fixture
def runner():
    return FakeRunner()


def full_engine(runner, encoded_ahead: int) -> tuple[Engine, Generation]:
    """An engine whose only slot is taken, by a generation that was prefilled and has to wait for its next step."""
    engine = engine_with(runner, slots=1, encoded_ahead=encoded_ahead)
    runner.may_decode.clear()
    running = generation_of(1000)
    engine.submit(running)
    wait_for(lambda: runner.prefills)
    return engine, running


def test_images_of_waiting_generations_are_encoded_while_the_batch_is_full(runner):
    engine, running = full_engine(runner, encoded_ahead=3)
    shared = new_image()
    waiting = [generation_of(2, image) for image in (shared, shared, new_image(), new_image())]
    for generation in waiting:
        engine.submit(generation)
    runner.may_decode.set()
    wait_for(lambda: len(runner.steps) > 3)
    assert [generation.image.embedding is not None for generation in waiting] == [True, True, True, False]
    assert runner.images_encoded == [1, 2]
    assert runner.prefills == [[[0]]]
    running.future.cancel()
    for generation in waiting:
        generation.future.result(WAIT)
    assert [generation.image_embedding_cached for generation in waiting] == [False, True, False, False]
    assert runner.images_encoded == [1, 2, 1]
    statistics = engine.embedding_statistics
    assert (statistics.hits, statistics.misses) == (1, 4)
    engine.close()


def test_no_image_is_encoded_ahead_by_default(runner):
    engine, running = full_engine(runner, encoded_ahead=0)
    waiting = generation_of(2)
    engine.submit(waiting)
    runner.may_decode.set()
    wait_for(lambda: len(runner.steps) > 3)
    assert waiting.image.embedding is None
    running.future.cancel()
    waiting.future.result(WAIT)
    engine.close()


def test_an_image_that_cannot_be_encoded_ahead_fails_only_its_own_generation(runner):
    engine, running = full_engine(runner, encoded_ahead=2)
    waiting = [generation_of(2), generation_of(2)]
    runner.fails_on_pixels = waiting[1].image.pixels
    for generation in waiting:
        engine.submit(generation)
    runner.may_decode.set()
    wait_for(lambda: len(runner.steps) > 3)
    assert not any(generation.future.done() for generation in (running, *waiting))
    running.future.cancel()
    assert len(waiting[0].future.result(WAIT).token_ids) == 3
    with pytest.raises(RuntimeError, match="no memory for it"):
        waiting[1].future.result(WAIT)
    assert [generation.image_embedding_cached for generation in waiting] == [False, False]
    engine.close()


def test_the_cause_of_an_encoding_ahead_is_the_first_generation_that_uses_it(runner):
    engine, running = full_engine(runner, encoded_ahead=2)
    image = new_image()
    cancelled, first, second = generation_of(2, image), generation_of(2, image), generation_of(2, image)
    for generation in (cancelled, first, second):
        engine.submit(generation)
    runner.may_decode.set()
    wait_for(lambda: image.embedding is not None)
    cancelled.future.cancel()
    running.future.cancel()
    for generation in (first, second):
        generation.future.result(WAIT)
    assert [first.image_embedding_cached, second.image_embedding_cached] == [False, True]
    assert runner.images_encoded == [1, 1]
    engine.close()
