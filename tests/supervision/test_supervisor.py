"""What becomes of generations when engines crash. The engines are fakes: order and timing are what counts."""

import threading
from concurrent.futures import CancelledError

import grpc
import pytest
from florence2.v1 import EngineInfo
from florence2_server.config import SupervisionConfig
from florence2_server.supervision.engine_process import EngineStartError
from florence2_server.supervision.pending_generation import GenerationError, PendingGeneration
from florence2_server.supervision.supervisor import EngineState, EngineSupervisor
from florence2_server.v1.engine_pb2 import GenerateRequest

from tests.supervision.fleet import POISON, WAIT, FakeCall, FakeEngine, generation_about, submitted, text_of, wait_for


def test_each_generation_gets_its_own_completion(supervise, fleet):
    first, second = submitted(supervise(), "a", "b")
    fleet.engine(0).complete(b"b")
    fleet.engine(0).complete(b"a")
    assert (text_of(first), text_of(second)) == ("a", "b")


def test_generations_in_flight_in_a_crash_are_resubmitted_in_the_order_of_arrival(supervise, fleet):
    generations = submitted(supervise(), "a", "b", "c", "d")
    fleet.engine(0).complete(b"b")
    fleet.engine(0).kill()
    successor = fleet.engine(1)
    wait_for(lambda: len(successor.order) == 3)
    assert successor.order == [b"a", b"c", b"d"]
    for image in successor.order:
        successor.complete(image)
    assert [text_of(generation) for generation in generations] == ["a", "b", "c", "d"]
    assert (fleet.restarts, fleet.resubmissions) == (1, 3)
    assert fleet.engine(0).stopped


def test_an_idle_engine_that_crashes_is_restarted_too(supervise, fleet):
    supervise()
    fleet.engine(0).kill()
    fleet.engine(1)


@pytest.mark.parametrize("images", [(), ("a", "b")])
def test_the_log_says_once_how_an_engine_ended_busy_or_not(supervise, fleet, caplog, images):
    submitted(supervise(), *images)
    fleet.engine(0).kill()
    fleet.engine(1)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["the engine process was killed by signal 9; restarting it"]


@pytest.mark.parametrize(
    ("code", "says"),
    [(grpc.StatusCode.DEADLINE_EXCEEDED, "within 10 s"), (grpc.StatusCode.UNAVAILABLE, "(UNAVAILABLE)")],
)
def test_an_engine_whose_process_still_runs_did_not_end(supervise, fleet, caplog, code, says):
    class Silent(FakeEngine):
        def Heartbeat(self, _request, timeout):  # noqa: ARG002, N802
            error = FakeCall()
            error.end(code)
            raise error

    fleet.planned = [Silent()]
    supervise()
    fleet.engine(1)
    assert f"the engine gave no heartbeat {says}, and its process still runs; restarting it" in caplog.text


def test_a_generation_submitted_during_a_restart_waits_for_the_next_engine(supervise, fleet):
    slow = FakeEngine()
    ready = threading.Event()
    slow.wait_until_ready = lambda _timeout: ready.wait(WAIT) and EngineInfo()
    fleet.planned = [FakeEngine(), slow]
    supervisor = supervise()
    fleet.engine(0).kill()
    fleet.engine(1)
    (generation,) = submitted(supervisor, "a")
    assert not generation.completion.done()
    ready.set()
    wait_for(lambda: slow.order)
    slow.complete(b"a")
    assert text_of(generation) == "a"


def test_what_each_engine_serves_is_passed_on(supervise, fleet):
    supervisor = supervise()
    first = supervisor.info
    assert fleet.infos == [first]
    fleet.engine(0).kill()
    fleet.engine(1)
    wait_for(lambda: len(fleet.infos) == 2)
    assert supervisor.info == fleet.infos[1] != first


def test_an_engine_that_makes_no_progress_is_restarted(supervise, fleet):
    (generation,) = submitted(supervise(stuck_seconds=30), "a")
    fleet.engine(0).seconds_without_progress = 31
    wait_for(lambda: len(fleet.engines) > 1 and fleet.engines[1].order)
    fleet.engine(1).complete(b"a")
    assert text_of(generation) == "a"
    assert fleet.engine(0).stopped


def test_a_generation_that_crashes_engines_is_found_and_all_others_are_completed(supervise, fleet):
    fleet.planned = [FakeEngine() for _ in range(20)]
    supervisor = supervise(max_restarts=100)
    names = [f"good {number}" for number in range(8)]
    good = submitted(supervisor, *names[:4])
    (poisoned,) = submitted(supervisor, POISON)
    good += submitted(supervisor, *names[4:])
    for engine in fleet.planned:
        engine.completes_at_once = True
    error = poisoned.completion.exception(WAIT)
    assert isinstance(error, GenerationError)
    assert error.status is grpc.StatusCode.INTERNAL
    assert "image poison" in str(error)
    assert [text_of(generation) for generation in good] == names


def test_generations_in_flight_in_two_crashes_are_resubmitted_one_by_one(supervise, fleet):
    supervisor = supervise()
    generations = submitted(supervisor, "a", "b", "c")
    fleet.engine(0).kill()
    wait_for(lambda: len(fleet.engine(1).order) == 3)
    fleet.engine(1).kill()
    third = fleet.engine(2)
    generations += submitted(supervisor, "new")
    for expected in (b"a", b"b", b"c", b"new"):
        wait_for(lambda expected=expected: expected in third.calls)
        in_flight = [image for image in third.order if third.calls[image].code() is not grpc.StatusCode.OK]
        assert in_flight == [expected]
        third.complete(expected)
    assert [text_of(generation) for generation in generations] == ["a", "b", "c", "new"]


def test_a_cancelled_generation_is_not_resubmitted(supervise, fleet):
    kept, cancelled = submitted(supervise(), "kept", "cancelled")
    cancelled.cancel()
    fleet.engine(0).kill()
    wait_for(lambda: fleet.engine(1).order)
    assert fleet.engine(1).order == [b"kept"]
    fleet.engine(1).complete(b"kept")
    assert text_of(kept) == "kept"
    with pytest.raises(CancelledError):
        cancelled.completion.result(WAIT)


def test_cancelling_a_generation_cancels_its_call(supervise, fleet):
    (generation,) = submitted(supervise(), "a")
    generation.cancel()
    assert fleet.engine(0).calls[b"a"].code() is grpc.StatusCode.CANCELLED
    assert len(fleet.engines) == 1


def test_a_rejected_generation_is_not_resubmitted(supervise, fleet):
    (generation,) = submitted(supervise(), "a")
    fleet.engine(0).calls[b"a"].end(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    error = generation.completion.exception(WAIT)
    assert (error.status, str(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    assert len(fleet.engines) == 1


def test_without_a_first_engine_there_is_no_supervisor(fleet):
    fleet.planned = [FakeEngine("no checkpoint")]
    supervisor = EngineSupervisor(fleet.launch, SupervisionConfig(), fleet)
    with pytest.raises(EngineStartError, match="no checkpoint"):
        supervisor.start()
    assert fleet.engine(0).stopped


def test_while_no_engine_starts_generations_are_rejected(supervise, fleet):
    fleet.planned = [FakeEngine(), FakeEngine("checkpoint removed"), FakeEngine("checkpoint removed")]
    supervisor = supervise()
    (waiting,) = submitted(supervisor, "waiting")
    fleet.engine(0).kill()
    error = waiting.completion.exception(WAIT)
    assert error.status is grpc.StatusCode.UNAVAILABLE
    assert "checkpoint removed" in str(error)
    (refused,) = submitted(supervisor, "refused")
    assert refused.completion.exception(0).status is grpc.StatusCode.UNAVAILABLE
    fleet.engine(3)  # the checkpoint is back
    wait_for(lambda: supervisor.state is EngineState.RUNNING)
    (served,) = submitted(supervisor, "served")
    fleet.engine(3).complete(b"served")
    assert text_of(served) == "served"


def test_an_engine_that_cannot_be_launched_is_launched_later(supervise, fleet):
    fleet.planned = [
        FakeEngine(),
        EngineStartError("the folder for its socket cannot be created: [Errno 28] No space left on device"),
    ]
    supervisor = supervise()
    (waiting,) = submitted(supervisor, "waiting")
    fleet.engine(0).kill()
    assert "No space left" in str(waiting.completion.exception(WAIT))
    fleet.engine(1)  # there is room again
    wait_for(lambda: supervisor.state is EngineState.RUNNING)


def test_an_unexpected_exception_does_not_end_the_supervision(supervise, fleet, monkeypatch, caplog):
    supervise()
    monkeypatch.setattr(fleet, "observe_heartbeat", lambda heartbeat: heartbeat.no_such_field)
    wait_for(lambda: "no_such_field" in caplog.text)
    fleet.engine(0).kill()
    fleet.engine(1)


def test_after_too_many_crashes_in_a_row_the_state_is_failed(supervise, fleet):
    supervisor = supervise(max_restarts=2)
    submitted(supervisor, "a", "b")
    for number in range(3):
        wait_for(lambda number=number: fleet.engine(number).order)
        fleet.engine(number).kill()
    wait_for(lambda: supervisor.state is EngineState.FAILED)


def test_the_backoff_doubles_up_to_its_maximum(supervise):
    supervisor = supervise(max_backoff_seconds=3)
    waits = []
    for starts in range(6):
        supervisor._fruitless_starts = starts
        waits.append(supervisor._backoff())
    assert waits == [0, 0.5, 1, 2, 3, 3]


def test_closing_ends_pending_generations(supervise, fleet):
    supervisor = supervise()
    (generation,) = submitted(supervisor, "a")
    supervisor.close()
    assert generation.completion.exception(WAIT).status is grpc.StatusCode.UNAVAILABLE
    (late,) = submitted(supervisor, "late")
    assert late.completion.exception(0).status is grpc.StatusCode.UNAVAILABLE
    assert fleet.engine(0).stopped
    assert len(fleet.engines) == 1


def test_callbacks_may_call_the_supervisor_from_other_threads(supervise, fleet):
    """None runs while the supervisor holds its lock: of completions, of rejections, of the observer, of `describe`."""
    supervisor = supervise(max_restarts=100)

    def submit_elsewhere(*_) -> str:
        thread = threading.Thread(target=submitted, args=(supervisor, "from a callback"))
        thread.start()
        thread.join(WAIT)
        locked.append(thread.is_alive())
        return "described"

    locked: list[bool] = []
    fleet.count_resubmission = submit_elsewhere
    fleet.planned = [FakeEngine() for _ in range(10)]
    poisoned = PendingGeneration(GenerateRequest(image=POISON), describe=submit_elsewhere)
    completed, waiting = generation_about("completed"), generation_about("waiting")
    for generation in (completed, poisoned, waiting):
        generation.completion.add_done_callback(submit_elsewhere)
    supervisor.submit(completed)
    fleet.engine(0).complete(b"completed")
    for engine in fleet.planned:
        engine.completes_at_once = True
    supervisor.submit(poisoned)
    assert "described" in str(poisoned.completion.exception(WAIT))
    wait_for(lambda: supervisor.state is EngineState.RUNNING)
    for engine in fleet.engines:
        engine.completes_at_once = False
    supervisor.submit(waiting)
    supervisor.close()
    assert waiting.completion.exception(WAIT).status is grpc.StatusCode.UNAVAILABLE
    assert len(locked) >= 5
    assert not any(locked)
