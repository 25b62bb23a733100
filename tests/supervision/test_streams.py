"""Tokens of streamed generations: in order, each once, and the same after a crash."""

import gc
import threading
import weakref
from concurrent.futures import CancelledError

import grpc
import pytest
from florence2_server.supervision.pending_generation import PendingGeneration
from florence2_server.supervision.supervisor import EngineState, EngineSupervisor
from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateRequest

from tests.supervision.fleet import POISON, WAIT, submitted, text_of, wait_for


class Streamed:
    """A streamed generation about an image, and the tokens that were passed on for it."""

    def __init__(self, supervisor: EngineSupervisor, image: bytes, on_tokens=None) -> None:
        self.passed: list[GeneratedTokens] = []
        self.generation = PendingGeneration(
            GenerateRequest(image=image), describe=image.decode, on_tokens=on_tokens or self.passed.append
        )
        self.completion = self.generation.completion
        supervisor.submit(self.generation)

    @property
    def texts(self) -> list[str]:
        return [tokens.text for tokens in self.passed]


def test_tokens_are_passed_on_before_the_completion_ends(supervise, fleet):
    streamed = Streamed(supervise(), b"a")
    call = fleet.engine(0).stream(b"a")
    call.send("</s>", "<s>")
    wait_for(lambda: streamed.texts == ["</s><s>"])
    assert not streamed.completion.done()
    passed_at_end = []
    streamed.completion.add_done_callback(lambda _: passed_at_end.extend(streamed.texts))
    call.send("cat")
    call.send("</s>")
    call.respond()
    assert text_of(streamed.generation) == "</s><s>cat</s>"
    assert passed_at_end == ["</s><s>", "cat", "</s>"]


def test_after_a_crash_only_what_is_new_is_passed_on(supervise, fleet):
    streamed = Streamed(supervise(), b"a")
    fleet.engine(0).stream(b"a").send("a", "b", score=-1.0)
    wait_for(lambda: streamed.passed)
    fleet.engine(0).kill()
    successor = fleet.engine(1).stream(b"a")
    successor.send("a", score=-2.0)
    successor.send("b", "c", score=-2.0)
    successor.respond()
    response = streamed.completion.result(WAIT)
    assert streamed.texts == ["ab", "c"]
    assert response.text == "abc"
    assert [list(tokens.token_log_probabilities) for tokens in streamed.passed] == [[-1, -1], [-2]]
    assert list(response.token_log_probabilities) == [-1, -1, -2]
    assert [list(tokens.token_masses) for tokens in streamed.passed] == [[1, 1], [2]]
    assert list(response.token_masses) == [1, 1, 2]
    assert (fleet.restarts, fleet.resubmissions) == (1, 1)


@pytest.mark.parametrize("second", [["a", "X"], ["ab"], ["a"]], ids=["other text", "other ends", "too short"])
def test_a_stream_whose_answer_differs_after_a_crash_ends_unavailable(supervise, fleet, second):
    supervisor = supervise()
    streamed = Streamed(supervisor, b"a")
    fleet.engine(0).stream(b"a").send("a", "b")
    wait_for(lambda: streamed.passed)
    fleet.engine(0).kill()
    successor = fleet.engine(1).stream(b"a")
    successor.send(*second)
    if second == ["a"]:
        successor.respond()
    error = streamed.completion.exception(WAIT)
    assert error.status is grpc.StatusCode.UNAVAILABLE
    assert str(error) == "the engine crashed, and the answer of the next one differs from what was already sent"
    if second != ["a"]:
        assert successor.code() is grpc.StatusCode.CANCELLED
    assert streamed.texts == ["ab"]
    (other,) = submitted(supervisor, "other")
    fleet.engine(1).complete(b"other")
    assert text_of(other) == "other"
    assert len(fleet.engines) == 2


def test_an_exception_while_tokens_are_passed_on_fails_only_their_generation(supervise, fleet, caplog):
    def fail(_tokens) -> None:
        raise ValueError("full disk")

    supervisor = supervise()
    failing, other = Streamed(supervisor, b"failing", fail), Streamed(supervisor, b"other")
    fleet.engine(0).stream(b"failing").send("a")
    error = failing.completion.exception(WAIT)
    assert (error.status, str(error)) == (grpc.StatusCode.INTERNAL, "ValueError: full disk")
    assert "full disk" in caplog.text
    assert fleet.engine(0).calls[b"failing"].code() is grpc.StatusCode.CANCELLED
    call = fleet.engine(0).stream(b"other")
    call.send("b")
    call.respond()
    assert text_of(other.generation) == "b"
    assert (len(fleet.engines), fleet.restarts) == (1, 0)


def test_cancelling_a_streamed_generation_cancels_its_call(supervise, fleet):
    supervisor = supervise()
    streamed = Streamed(supervisor, b"a")
    call = fleet.engine(0).stream(b"a")
    call.send("a")
    wait_for(lambda: streamed.passed)
    streamed.generation.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(CancelledError):
        streamed.completion.result(WAIT)
    wait_for(lambda: not supervisor._queue.is_any_in_flight)
    assert fleet.resubmissions == 0


def test_a_rejected_streamed_generation_is_not_resubmitted(supervise, fleet):
    streamed = Streamed(supervise(), b"a")
    fleet.engine(0).stream(b"a").end(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    error = streamed.completion.exception(WAIT)
    assert (error.status, str(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    assert len(fleet.engines) == 1


def test_a_stream_without_a_response_is_an_error(supervise, fleet):
    streamed = Streamed(supervise(), b"a")
    fleet.engine(0).stream(b"a").end(grpc.StatusCode.OK)
    assert streamed.completion.exception(WAIT).status is grpc.StatusCode.INTERNAL


def test_a_streamed_generation_that_crashes_engines_is_found(supervise, fleet):
    supervisor = supervise(max_restarts=100)
    poisoned, other = Streamed(supervisor, POISON), Streamed(supervisor, b"other")
    error = poisoned.completion.exception(WAIT)
    assert error.status is grpc.StatusCode.INTERNAL
    assert "crashes the engine" in str(error)
    assert error.is_culprit
    wait_for(lambda: supervisor.state is EngineState.RUNNING)
    call = fleet.engine(3).stream(b"other")
    call.send("b")
    call.respond()
    assert text_of(other.generation) == "b"


def test_a_slow_receiver_of_tokens_holds_up_no_other_generation(supervise, fleet):
    supervisor = supervise()
    may_go_on = threading.Event()
    slow = Streamed(supervisor, b"slow", lambda _: may_go_on.wait(WAIT))
    fleet.engine(0).stream(b"slow").send("a")
    fleet.engine(0).stream(b"slow").respond()
    other = Streamed(supervisor, b"other")
    fleet.engine(0).stream(b"other").respond()
    assert text_of(other.generation) == ""
    assert not slow.completion.done()
    may_go_on.set()
    assert text_of(slow.generation) == "a"


def test_tokens_are_passed_on_while_no_lock_is_held(supervise, fleet):
    supervisor = supervise()
    was_locked = []

    def submit_elsewhere(_tokens) -> None:
        thread = threading.Thread(target=submitted, args=(supervisor, "from elsewhere"))
        thread.start()
        thread.join(WAIT)
        was_locked.append(thread.is_alive())

    streamed = Streamed(supervisor, b"a", submit_elsewhere)
    fleet.engine(0).stream(b"a").send("a")
    fleet.engine(0).stream(b"a").respond()
    assert text_of(streamed.generation) == "a"
    assert was_locked == [False]


def test_closing_ends_streamed_generations(supervise, fleet):
    supervisor = supervise()
    streamed = Streamed(supervisor, b"a")
    fleet.engine(0).stream(b"a").send("a")
    supervisor.close()
    assert streamed.completion.exception(WAIT).status is grpc.StatusCode.UNAVAILABLE
    assert len(fleet.engines) == 1


@pytest.mark.usefixtures("no_collector")
def test_nothing_holds_a_cancelled_stream(supervise, fleet):
    supervisor = supervise()
    streamed = Streamed(supervisor, b"a")
    call = fleet.engine(0).stream(b"a")
    streamed.generation.cancel()
    wait_for(lambda: not supervisor._queue.is_any_in_flight)
    generation = weakref.ref(streamed.generation)
    fleet.engine(0).calls.clear()
    assert not gc.isenabled()
    del streamed, call
    wait_for(lambda: generation() is None)
