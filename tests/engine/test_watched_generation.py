"""What the engine's loop reports about a generation while it runs."""

import pytest

from tests.engine.test_engine import WAIT, FakeRunner, engine_with, generation_of, wait_for


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def engine(runner):
    engine = engine_with(runner)
    yield engine
    runner.may_decode.set()
    engine.close()


def test_a_watched_generation_reports_all_tokens_but_the_last(engine):
    generation = generation_of(5)
    watched = generation.watch()
    engine.submit(generation)
    reported = []
    while (tokens := watched.get(timeout=WAIT)) is not None:
        reported += tokens.token_ids
    completion = generation.future.result(0)
    assert completion.token_ids == (2, *reported, 2)
    assert len(reported) == 4


def test_a_token_is_reported_before_the_next_step(engine, runner):
    watched = (generation := generation_of(1000)).watch()
    decode_step = runner.decode_step

    def only_one(*arguments):
        runner.decode_step = decode_step
        logits = decode_step(*arguments)
        runner.may_decode.clear()
        return logits

    runner.decode_step = only_one
    engine.submit(generation)
    assert watched.get(timeout=WAIT).token_ids == [0]
    assert len(runner.steps) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failure_ends_what_watches_a_generation(engine, runner):
    generation = generation_of(1000)
    watched = generation.watch()
    runner.may_decode.clear()
    engine.submit(generation)
    wait_for(lambda: runner.prefills)
    runner.decode_step = None  # not callable: the step fails
    runner.may_decode.set()
    while watched.get(timeout=WAIT) is not None:
        pass
    with pytest.raises(TypeError):
        generation.future.result(0)
