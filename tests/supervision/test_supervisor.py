"""What becomes of questions when engines die. The engines are fakes: order and timing are what counts."""

import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field

import grpc
import pytest
from florence2.engine.v1.engine_pb2 import GenerateRequest, GenerateResponse, HeartbeatResponse
from florence2_adapter.config import SupervisionConfig
from florence2_adapter.engine_process import EngineStartError
from florence2_adapter.job import EngineCallError, Job
from florence2_adapter.supervisor import EngineState, EngineSupervisor

WAIT = 10
POISON = b"poison"


class FakeCall(grpc.RpcError):
    """A call under way, with what the supervisor uses of `grpc.Future`."""

    def __init__(self) -> None:
        self._over: Future[None] = Future()
        self._outcome: tuple[grpc.StatusCode, object] = (grpc.StatusCode.UNKNOWN, "")

    def end(self, status: grpc.StatusCode, value: object = "") -> None:
        if not self._over.done():
            self._outcome = (status, value)
            self._over.set_result(None)

    def add_done_callback(self, callback) -> None:
        self._over.add_done_callback(lambda _: callback(self))

    def cancel(self) -> None:
        self.end(grpc.StatusCode.CANCELLED, "cancelled")

    def code(self) -> grpc.StatusCode:
        return self._outcome[0]

    def details(self) -> str:
        return str(self._outcome[1])

    def result(self) -> object:
        return self._outcome[1]


class FakeEngine:
    """Holds what it is asked until `answer`; dies where a test or a poisoned question wants it to."""

    def __init__(self, start_error: str = "") -> None:
        self._start_error = start_error
        self.calls: dict[bytes, FakeCall] = {}
        self.order: list[bytes] = []
        self.exit_status: int | None = None
        self.stopped = False
        self.seconds_without_progress = 0.0
        self.stub = self
        self.Generate = self
        self.answers_at_once = False

    def wait_until_ready(self, limit: float) -> None:  # noqa: ARG002
        if self._start_error:
            raise EngineStartError(self._start_error)

    def future(self, request: GenerateRequest) -> FakeCall:
        call = self.calls[request.image] = FakeCall()
        self.order.append(request.image)
        if request.image == POISON:
            threading.Timer(0.05, self.kill).start()
        elif self.answers_at_once:
            self.answer(request.image)
        return call

    def answer(self, image: bytes) -> None:
        self.calls[image].end(grpc.StatusCode.OK, GenerateResponse(text=image.decode()))

    def Heartbeat(self, _request, timeout):  # noqa: N802, ARG002 - gRPC's name
        if self.exit_status is not None:
            error = FakeCall()
            error.end(grpc.StatusCode.UNAVAILABLE)
            raise error
        return HeartbeatResponse(seconds_without_progress=self.seconds_without_progress)

    def kill(self) -> None:
        self.exit_status = -9
        for call in list(self.calls.values()):
            call.end(grpc.StatusCode.UNAVAILABLE, "connection reset")

    def stop(self) -> None:
        self.kill()
        self.stopped = True


@dataclass
class Fleet:
    """Hands out engines, and remembers them."""

    planned: list[FakeEngine | EngineStartError] = field(default_factory=list)
    engines: list[FakeEngine] = field(default_factory=list)
    restarts: int = 0
    retried: int = 0
    heartbeats: int = 0
    launched: threading.Condition = field(default_factory=threading.Condition)

    def launch(self) -> FakeEngine:
        with self.launched:
            engine = self.planned.pop(0) if self.planned else FakeEngine()
            if isinstance(engine, EngineStartError):
                raise engine
            self.engines.append(engine)
            self.launched.notify_all()
        return engine

    def engine(self, number: int) -> FakeEngine:
        """The engine of that number, waited for, counted from 0."""
        with self.launched:
            assert self.launched.wait_for(lambda: len(self.engines) > number, WAIT)
            return self.engines[number]

    def count_restart(self) -> None:
        self.restarts += 1

    def count_retried(self) -> None:
        self.retried += 1

    def observe_heartbeat(self, _heartbeat) -> None:
        self.heartbeats += 1


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def supervise(fleet):
    """Starts a supervisor over the fleet."""
    started = []

    def supervise(**limits) -> EngineSupervisor:
        supervisor = EngineSupervisor(fleet.launch, SupervisionConfig(**limits), fleet)
        supervisor.start()
        started.append(supervisor)
        return supervisor

    yield supervise
    for supervisor in started:
        supervisor.close()


def job_about(image: str | bytes) -> Job:
    image = image if isinstance(image, bytes) else image.encode()
    return Job(GenerateRequest(image=image), describe=lambda: f"image {image.decode()}")


def submitted(supervisor: EngineSupervisor, *images: str | bytes) -> list[Job]:
    jobs = [job_about(image) for image in images]
    for job in jobs:
        supervisor.submit(job)
    return jobs


def wait_for(condition) -> None:
    for _ in range(WAIT * 100):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to be")


def text_of(job: Job) -> str:
    return job.outcome.result(WAIT).text


def test_an_answer_reaches_who_asked(supervise, fleet):
    first, second = submitted(supervise(), "a", "b")
    fleet.engine(0).answer(b"b")
    fleet.engine(0).answer(b"a")
    assert (text_of(first), text_of(second)) == ("a", "b")


def test_what_a_dead_engine_left_is_asked_again_in_its_order(supervise, fleet):
    jobs = submitted(supervise(), "a", "b", "c", "d")
    fleet.engine(0).answer(b"b")
    fleet.engine(0).kill()
    successor = fleet.engine(1)
    wait_for(lambda: len(successor.order) == 3)
    assert successor.order == [b"a", b"c", b"d"]
    for image in successor.order:
        successor.answer(image)
    assert [text_of(job) for job in jobs] == ["a", "b", "c", "d"]
    assert fleet.restarts == 1
    assert fleet.engine(0).stopped


def test_an_idle_engine_that_dies_is_replaced_too(supervise, fleet):
    supervise()
    fleet.engine(0).kill()
    fleet.engine(1)


def test_what_is_asked_while_there_is_no_engine_waits_for_the_next(supervise, fleet):
    slow = FakeEngine()
    ready = threading.Event()
    slow.wait_until_ready = lambda _limit: ready.wait(WAIT)
    fleet.planned = [FakeEngine(), slow]
    supervisor = supervise()
    fleet.engine(0).kill()
    fleet.engine(1)
    (job,) = submitted(supervisor, "a")
    assert not job.outcome.done()
    ready.set()
    wait_for(lambda: slow.order)
    slow.answer(b"a")
    assert text_of(job) == "a"


def test_an_engine_that_makes_no_progress_is_replaced(supervise, fleet):
    (job,) = submitted(supervise(stuck_seconds=30), "a")
    fleet.engine(0).seconds_without_progress = 31
    wait_for(lambda: len(fleet.engines) > 1 and fleet.engines[1].order)
    fleet.engine(1).answer(b"a")
    assert text_of(job) == "a"
    assert fleet.engine(0).stopped


def test_the_guilty_one_is_found_and_its_neighbours_are_answered(supervise, fleet):
    fleet.planned = [FakeEngine() for _ in range(20)]
    supervisor = supervise(max_restarts=100)
    names = [f"good {number}" for number in range(8)]
    good = submitted(supervisor, *names[:4])
    (poisoned,) = submitted(supervisor, POISON)
    good += submitted(supervisor, *names[4:])
    for engine in fleet.planned:
        engine.answers_at_once = True
    error = poisoned.outcome.exception(WAIT)
    assert isinstance(error, EngineCallError)
    assert error.status is grpc.StatusCode.INTERNAL
    assert "image poison" in str(error)
    assert [text_of(job) for job in good] == names


def test_who_was_there_when_two_engines_died_is_asked_alone(supervise, fleet):
    supervisor = supervise()
    jobs = submitted(supervisor, "a", "b", "c")
    fleet.engine(0).kill()
    wait_for(lambda: len(fleet.engine(1).order) == 3)
    fleet.engine(1).kill()
    third = fleet.engine(2)
    jobs += submitted(supervisor, "new")
    for expected in (b"a", b"b", b"c", b"new"):
        wait_for(lambda expected=expected: expected in third.calls)
        under_way = [image for image in third.order if third.calls[image].code() is not grpc.StatusCode.OK]
        assert under_way == [expected]
        third.answer(expected)
    assert [text_of(job) for job in jobs] == ["a", "b", "c", "new"]


def test_a_cancelled_question_is_not_asked_again(supervise, fleet):
    kept, cancelled = submitted(supervise(), "kept", "cancelled")
    cancelled.cancel()
    fleet.engine(0).kill()
    wait_for(lambda: fleet.engine(1).order)
    assert fleet.engine(1).order == [b"kept"]
    fleet.engine(1).answer(b"kept")
    assert text_of(kept) == "kept"
    with pytest.raises(CancelledError):
        cancelled.outcome.result(WAIT)


def test_a_cancelled_question_costs_its_engine_nothing_more(supervise, fleet):
    (job,) = submitted(supervise(), "a")
    job.cancel()
    assert fleet.engine(0).calls[b"a"].code() is grpc.StatusCode.CANCELLED
    assert len(fleet.engines) == 1


def test_a_refused_question_is_not_asked_again(supervise, fleet):
    (job,) = submitted(supervise(), "a")
    fleet.engine(0).calls[b"a"].end(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    error = job.outcome.exception(WAIT)
    assert (error.status, str(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    assert len(fleet.engines) == 1


def test_the_first_engine_has_to_start(fleet):
    fleet.planned = [FakeEngine("no checkpoint")]
    supervisor = EngineSupervisor(fleet.launch, SupervisionConfig(), fleet)
    with pytest.raises(EngineStartError, match="no checkpoint"):
        supervisor.start()
    assert fleet.engine(0).stopped


def test_without_an_engine_that_starts_callers_are_refused_until_there_is_one(supervise, fleet):
    fleet.planned = [FakeEngine(), FakeEngine("checkpoint removed"), FakeEngine("checkpoint removed")]
    supervisor = supervise()
    (waiting,) = submitted(supervisor, "waiting")
    fleet.engine(0).kill()
    error = waiting.outcome.exception(WAIT)
    assert error.status is grpc.StatusCode.UNAVAILABLE
    assert "checkpoint removed" in str(error)
    (refused,) = submitted(supervisor, "refused")
    assert refused.outcome.exception(0).status is grpc.StatusCode.UNAVAILABLE
    fleet.engine(3)  # the checkpoint is back
    wait_for(lambda: supervisor.state is EngineState.RUNNING)
    (served,) = submitted(supervisor, "served")
    fleet.engine(3).answer(b"served")
    assert text_of(served) == "served"


def test_an_engine_for_which_there_is_no_room_is_started_later(supervise, fleet):
    fleet.planned = [FakeEngine(), EngineStartError("no folder for its socket: [Errno 28] No space left on device")]
    supervisor = supervise()
    (waiting,) = submitted(supervisor, "waiting")
    fleet.engine(0).kill()
    assert "No space left" in str(waiting.outcome.exception(WAIT))
    fleet.engine(1)  # there is room again
    wait_for(lambda: supervisor.state is EngineState.RUNNING)


def test_nothing_unexpected_ends_the_watch(supervise, fleet, monkeypatch, caplog):
    supervise()
    monkeypatch.setattr(fleet, "observe_heartbeat", lambda heartbeat: heartbeat.no_such_field)
    wait_for(lambda: "no_such_field" in caplog.text)
    fleet.engine(0).kill()
    fleet.engine(1)


def test_engines_that_die_of_everything_are_not_trusted_for_ever(supervise, fleet):
    supervisor = supervise(max_restarts=2)
    submitted(supervisor, "a", "b")
    for number in range(3):
        wait_for(lambda number=number: fleet.engine(number).order)
        fleet.engine(number).kill()
    wait_for(lambda: supervisor.state is EngineState.FAILED)


def test_waits_between_starts_grow_to_a_limit(supervise):
    supervisor = supervise(max_backoff_seconds=3)
    waits = []
    for starts in range(6):
        supervisor._starts_without_answer = starts
        waits.append(supervisor._backoff())
    assert waits == [0, 0.5, 1, 2, 3, 3]


def test_closing_answers_who_waits(supervise, fleet):
    supervisor = supervise()
    (job,) = submitted(supervisor, "a")
    supervisor.close()
    assert job.outcome.exception(WAIT).status is grpc.StatusCode.UNAVAILABLE
    (late,) = submitted(supervisor, "late")
    assert late.outcome.exception(0).status is grpc.StatusCode.UNAVAILABLE
    assert fleet.engine(0).stopped
    assert len(fleet.engines) == 1
