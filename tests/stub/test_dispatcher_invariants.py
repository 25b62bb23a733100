"""Whatever happens, each request is answered once, and places and bytes are returned. The engine is a fake here."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import numpy as np
from florence2.v1 import ImageSize, StreamEvent, TaskRequest, TaskResponse
from florence2_server.config import AdmissionConfig
from florence2_server.stub.dispatcher import Dispatcher
from florence2_server.v1.engine_pb2 import GenerateResponse
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.stub.conftest import FakeEngine, FakeMetrics, dispatcher_of

DETECTED = (
    "</s><s>dog<loc_10><loc_20><loc_30><loc_40>cat<loc_50><loc_20><loc_90><loc_40><loc_9><loc_9><loc_8><loc_8></s>"
)
STATUSES = [
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.FAILED_PRECONDITION,
]

single = st.sampled_from(
    [{"caption": {}}, {"object_detection": {}}, {"ocr": {}, "raw": True}, {"prompt": "<OD>"}, {"prompt": "What?"}]
).map(lambda fields: TaskRequest(**fields))
cascades = st.sampled_from(
    [
        {"caption_grounding": {"detail": 2}},
        {"region_analysis": {}},
        {"region_analysis": {"max_regions": 1, "region_task": 4}},
        {"region_analysis": {"open_vocabulary_detection": {"query": "a dog"}}},
    ]
).map(lambda fields: TaskRequest(**fields))
lists = st.lists(single | cascades, min_size=1, max_size=3).map(lambda tasks: TaskRequest(task_list={"tasks": tasks}))
invalid = st.sampled_from([TaskRequest(), TaskRequest(task_list={}), TaskRequest(prompt=" "), TaskRequest(priority=9)])
elements = st.tuples(single | cascades | lists | invalid, st.sampled_from([0, 1, 2, 3]), st.integers(0, 50))


@dataclass(eq=False)
class Caller:
    """An `IncomingRequest` that notes how it was answered."""

    batch: list
    is_streamed: bool
    queue_timeout: float | None = None
    request_id: str = "a request"
    traceparent: str = ""
    cancelled: bool = False
    answers: list = field(default_factory=list)
    events: list = field(default_factory=list)

    def input(self, name: str):
        columns = {"IMAGE": [[image] for image, _ in self.batch], "REQUEST": [[data] for _, data in self.batch]}
        return np.array(columns[name], np.object_)

    def is_cancelled(self) -> bool:
        assert not self.answers, "an answered request must not be checked"
        return self.cancelled

    def respond(self, elements) -> None:
        assert not self.is_streamed
        self.answers.append([TaskResponse.FromString(element) for element in elements])

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        assert not self.is_streamed
        assert message
        self.answers.append(status)

    def emit(self, event: bytes) -> None:
        assert self.is_streamed
        assert not self.answers
        self.events.append(StreamEvent.FromString(event))

    def end(self) -> None:
        self.answers.append(self.events[-1].WhichOneof("event"))


class DispatcherMachine(RuleBasedStateMachine):
    """Requests arrive, generations end in any order, callers leave, the engine rejects."""

    @initialize(places=st.integers(1, 3), requests=st.integers(1, 4), memory=st.integers(20, 200))
    def start(self, places: int, requests: int, memory: int) -> None:
        self.engine, self.metrics, self.callers = FakeEngine(), FakeMetrics(), []
        self.ended: set = set()
        config = AdmissionConfig(
            ahead=places - 1, queue_requests=requests, queue_bytes=memory, max_steps=6, max_tasks=3
        )
        self.config, self.places = config, places
        self.dispatcher = dispatcher_of(self.engine, self.metrics, config, slots=1)

    @rule(
        batch=st.lists(elements, min_size=1, max_size=3), streamed=st.booleans(), timeout=st.sampled_from([None, 1e-9])
    )
    def arrive(self, batch: list, streamed: bool, timeout: float | None) -> None:
        data = []
        for request, priority, size in batch[: 1 if streamed else None]:
            copy = TaskRequest()
            copy.CopyFrom(request)
            copy.priority = copy.priority or priority
            data.append((bytes(size), copy.SerializeToString()))
        caller = Caller(data, streamed, timeout)
        self.callers.append(caller)
        self.dispatcher.dispatch([caller])

    @rule(number=st.integers(0, 99), text=st.sampled_from(["</s><s>A dog.</s>", DETECTED, "", "<loc_1>"]))
    def succeed(self, number: int, text: str) -> None:
        if generation := self._under_way(number):
            generation.succeed(GenerateResponse(text=text, image_size=ImageSize(width=90, height=50), finish_reason=1))

    @rule(number=st.integers(0, 99), status=st.sampled_from(STATUSES))
    def fail(self, number: int, status: grpc.StatusCode) -> None:
        if generation := self._under_way(number):
            generation.fail(status, "so it is")

    @rule(number=st.integers(0, 99))
    def leave(self, number: int) -> None:
        if self.callers:
            self.callers[number % len(self.callers)].cancelled = True

    @rule()
    def sweep(self) -> None:
        for pending, is_waiting in self.dispatcher.pending():
            self.dispatcher.end_if_over(pending, is_waiting=is_waiting, ask_caller=True)

    @invariant()
    def answered_at_most_once(self) -> None:
        if self.callers:
            assert all(len(caller.answers) <= 1 for caller in self.callers)

    @invariant()
    def limits_hold(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        self.dispatcher.show()
        statistics = self.metrics.statistics
        unanswered = [caller for caller in self.callers if not caller.answers]
        assert statistics.submitted == len([each for each in self.engine.submitted if not each.completion.done()])
        assert statistics.submitted <= self.places
        assert statistics.requests <= self.config.queue_requests
        sizes = [2 * sum(len(image) for image, _ in caller.batch) for caller in unanswered]
        assert statistics.memory == sum(sizes)
        assert statistics.memory <= self.config.queue_bytes or len(sizes) == 1

    def teardown(self) -> None:
        """All generations end: then every request is answered, and nothing is held."""
        while generation := self._under_way(0):
            generation.succeed(GenerateResponse(text=DETECTED, image_size=ImageSize(width=90, height=50)))
        if hasattr(self, "dispatcher"):
            self.dispatcher.show()
            assert [len(caller.answers) for caller in self.callers] == [1] * len(self.callers)
            statistics = self.metrics.statistics
            assert (statistics.requests, statistics.memory, statistics.submitted) == (0, 0, 0)
            assert self.dispatcher.pending() == []
            refused = [caller for caller in self.callers if caller.answers == [grpc.StatusCode.UNAVAILABLE]]
            assert len(self.metrics.refusals) <= len(refused) + len(self.callers)

    def _under_way(self, number: int):
        running = [each for each in self.engine.submitted if not each.completion.done()]
        return running[number % len(running)] if running else None


DispatcherMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, derandomize=True, database=None
)
TestDispatcher = DispatcherMachine.TestCase


@dataclass
class Turmoil:
    """Completes generations, delivers requests, and sweeps, all at the same time, until every request is answered."""

    engine: FakeEngine
    dispatcher: Dispatcher
    callers: list[Caller]
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        threads = [threading.Thread(target=self._complete, args=(number,)) for number in range(3)]
        threads += [threading.Thread(target=self._arrive, args=(number,)) for number in range(4)]
        threads += [threading.Thread(target=self._sweep)]
        for thread in threads:
            thread.start()
        for _ in range(3000):
            if all(caller.answers for caller in self.callers):
                break
            self.done.wait(0.01)
        self.done.set()
        for thread in threads:
            thread.join()

    def _complete(self, first: int) -> None:
        seen, response = first, GenerateResponse(text=DETECTED, image_size=ImageSize(width=90, height=50))
        while not self.done.wait(0 if seen < len(self.engine.submitted) else 0.001):
            if seen < len(self.engine.submitted):
                self.engine.submitted[seen].succeed(response)
                seen += 3

    def _arrive(self, first: int) -> None:
        for caller in self.callers[first::4]:
            self.dispatcher.dispatch([caller])
            caller.cancelled = first == 3

    def _sweep(self) -> None:
        while not self.done.wait(0.001):
            for pending, is_waiting in self.dispatcher.pending():
                self.dispatcher.end_if_over(pending, is_waiting=is_waiting, ask_caller=True)


def test_each_request_is_answered_once_if_everything_happens_at_the_same_time():
    engine, metrics, plans = FakeEngine(), FakeMetrics(), ThreadPoolExecutor(3)
    dispatcher = dispatcher_of(engine, metrics, AdmissionConfig(ahead=2, queue_requests=1000), slots=2, plans=plans)
    request = TaskRequest(task_list={"tasks": [{"caption": {}}, {"region_analysis": {}}, {"caption_grounding": {}}]})
    callers = [Caller([(b"image", request.SerializeToString())], is_streamed=bool(number % 2)) for number in range(60)]
    Turmoil(engine, dispatcher, callers).run()
    plans.shutdown()
    assert [len(caller.answers) for caller in callers] == [1] * len(callers)
    dispatcher.show()
    assert (metrics.statistics.requests, metrics.statistics.memory) == (0, 0)
    finals = [caller.events[-1].response for caller in callers if caller.is_streamed and not caller.cancelled]
    unary = [caller.answers[0][0] for caller in callers if not caller.is_streamed]
    assert len({response.SerializeToString(deterministic=True) for response in finals + unary}) == 1
