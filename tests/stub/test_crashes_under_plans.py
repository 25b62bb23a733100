"""Plans, streams, callers who leave, and an engine that crashes at random: the dispatcher above a real supervisor."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from florence2.v1 import ImageSize, TaskRequest
from florence2_server.config import AdmissionConfig, SupervisionConfig
from florence2_server.supervision.supervisor import EngineSupervisor
from florence2_server.v1.engine_pb2 import GenerateResponse

from tests.stub.conftest import FakeMetrics, dispatcher_of
from tests.stub.test_dispatcher_invariants import DETECTED, Caller
from tests.supervision.fleet import FakeCall, FakeEngine, FakeStream, Fleet, wait_for

REQUESTS = [
    TaskRequest(caption={}),
    TaskRequest(region_analysis={"region_task": 2}),
    TaskRequest(caption_grounding={"detail": 3}),
    TaskRequest(task_list={"tasks": [{"ocr": {}}, {"region_analysis": {}}, {"caption_grounding": {}}]}),
]
SIZE = ImageSize(width=90, height=50)
CALLERS = 40
CRASHES = 4


class EngineOfPlans(FakeEngine):
    """An engine whose calls end in any order, however many are about the same image."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[FakeCall] = []

    def future(self, _request) -> FakeCall:
        self.under_way.append(call := FakeCall())
        return call

    def GenerateStream(self, _request) -> FakeStream:  # noqa: N802 - gRPC's name
        self.under_way.append(call := FakeStream())
        return call

    def kill(self) -> None:
        self.exit_status = -9
        for call in list(self.under_way):
            call.end(grpc.StatusCode.UNAVAILABLE, "connection reset")


def finish(call: FakeCall) -> None:
    """End a call with the answer that every call has."""
    if isinstance(call, FakeStream):
        call.send(DETECTED[:20], DETECTED[20:])
        call._sent.image_size.CopyFrom(SIZE)
        call.respond()
    else:
        call.end(grpc.StatusCode.OK, GenerateResponse(text=DETECTED, image_size=SIZE))


@pytest.mark.parametrize("seed", range(6))
def test_each_request_is_answered_once_whatever_crashes(seed):
    generator = random.Random(seed)
    fleet = Fleet(planned=[EngineOfPlans() for _ in range(CRASHES + 3)])
    supervisor = EngineSupervisor(fleet.launch, SupervisionConfig(), fleet)
    supervisor.start()
    metrics = FakeMetrics()
    config = AdmissionConfig(ahead=2, queue_requests=CALLERS)
    plans = ThreadPoolExecutor(2)
    dispatcher = dispatcher_of(supervisor, metrics, config, slots=3, plans=plans)
    callers = [
        Caller([(b"image", generator.choice(REQUESTS).SerializeToString())], is_streamed=generator.random() < 0.5)
        for _ in range(CALLERS)
    ]
    for caller in callers:
        dispatcher.dispatch([caller])
    stopped = threading.Event()
    run = threading.Thread(target=_run_engines, args=(fleet, generator, stopped))
    run.start()
    leavers = generator.sample(callers, 5)
    for caller in leavers:
        caller.cancelled = True
    for pending, is_waiting in dispatcher.pending():
        dispatcher.end_if_over(pending, is_waiting=is_waiting, ask_caller=True)
    try:
        wait_for(lambda: all(caller.answers for caller in callers), seconds=30)
    finally:
        stopped.set()
        run.join()
        supervisor.close()
        plans.shutdown()
    assert [len(caller.answers) for caller in callers] == [1] * CALLERS
    assert fleet.restarts == CRASHES
    stayed = [caller for caller in callers if not caller.cancelled]
    assert all(caller.answers[0] == "response" or isinstance(caller.answers[0], list) for caller in stayed)
    dispatcher.show()
    statistics = metrics.statistics
    assert (statistics.requests, statistics.memory, statistics.submitted) == (0, 0, 0)


def _run_engines(fleet: Fleet, generator: random.Random, stopped: threading.Event) -> None:
    """Complete calls in any order; crash after a few."""
    crashes = 0
    until_crash = generator.randrange(3, 12)
    while not stopped.wait(0.002):
        engine = fleet.engines[-1]
        running = [call for call in engine.under_way if not call.is_over]
        if not running or engine.exit_status is not None:
            continue
        if until_crash == 0 and crashes < CRASHES:
            crashes += 1
            until_crash = generator.randrange(3, 12)
            engine.kill()
            continue
        finish(generator.choice(running))
        until_crash = max(0, until_crash - 1)
