"""A fleet of fake engines: they crash, hang and recover when a test says so."""

import itertools
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field

import grpc
from florence2.v1 import EngineInfo
from florence2_server.supervision.engine_process import EngineStartError
from florence2_server.supervision.pending_generation import PendingGeneration
from florence2_server.supervision.supervisor import EngineSupervisor
from florence2_server.v1.engine_pb2 import (
    GeneratedTokens,
    GenerateRequest,
    GenerateResponse,
    GenerateStreamResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    SetAdaptersRequest,
    SetAdaptersResponse,
)

WAIT = 10
POISON = b"poison"


class FakeCall(grpc.RpcError):
    """A call in flight, with what the supervisor uses of `grpc.Future`."""

    def __init__(self) -> None:
        self._over: Future[None] = Future()
        self._outcome: tuple[grpc.StatusCode, object] = (grpc.StatusCode.UNKNOWN, "")

    def end(self, status: grpc.StatusCode, value: object = "") -> None:
        if not self._over.done():
            self._outcome = (status, value)
            self._over.set_result(None)

    @property
    def is_over(self) -> bool:
        return self._over.done()

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


class FakeStream(FakeCall):
    """A call whose events a test sends."""

    def __init__(self) -> None:
        super().__init__()
        self._events: queue.SimpleQueue[GenerateStreamResponse | None] = queue.SimpleQueue()
        self._over.add_done_callback(lambda _: self._events.put(None))
        self._sent = GenerateResponse()

    def send(self, *texts: str, score: float = -1.0) -> None:
        """Send a message of a token for each text."""
        length = len(self._sent.text.encode())
        ends = list(itertools.accumulate((len(text.encode()) for text in texts), initial=length))[1:]
        tokens = GeneratedTokens(
            text="".join(texts),
            token_log_probabilities=[score] * len(texts),
            token_masses=[-score] * len(texts),
            token_ends=ends,
        )
        self._sent.text += tokens.text
        self._sent.token_log_probabilities.extend(tokens.token_log_probabilities)
        self._sent.token_masses.extend(tokens.token_masses)
        self._sent.token_ends.extend(tokens.token_ends)
        self._events.put(GenerateStreamResponse(tokens=tokens))

    def respond(self) -> None:
        """Send the response, which consists of the tokens that were sent, and end."""
        self._events.put(GenerateStreamResponse(response=self._sent))
        self.end(grpc.StatusCode.OK)

    def __iter__(self):
        while (event := self._events.get()) is not None:
            yield event
        if self.code() is not grpc.StatusCode.OK:
            raise self


class FakeEngine:
    """Keeps each call until `complete`; crashes by `kill`, or soon after a poisoned image."""

    def __init__(self, start_error: str = "") -> None:
        self._start_error = start_error
        self.calls: dict[bytes, FakeCall] = {}
        self.order: list[bytes] = []
        self.exit_status: int | None = None
        self.stopped = False
        self.seconds_without_progress = 0.0
        self.stub = self
        self.Generate = self
        self.completes_at_once = False
        self.adapters: list[list[str]] = []
        self.plans: list[list[str]] = []  # of each heartbeat
        self.adapter_errors: dict[str, str] = {}
        self.former: dict[str, str] = {}  # errors of adapters of which a former version is served
        self.crashing_adapter = ""
        self.may_load = threading.Event()
        self.may_load.set()

    def wait_until_ready(self, timeout: float) -> EngineInfo:  # noqa: ARG002
        if self._start_error:
            raise EngineStartError(self._start_error)
        return EngineInfo(revision=str(id(self)))

    def exit_status_within(self, seconds: float) -> int | None:  # noqa: ARG002
        return self.exit_status

    def future(self, request: GenerateRequest) -> FakeCall:
        call = self.calls[request.image] = FakeCall()
        self.order.append(request.image)
        if request.image == POISON:
            threading.Timer(0.05, self.kill).start()
        elif self.completes_at_once:
            self.complete(request.image)
        return call

    def GenerateStream(self, request: GenerateRequest) -> FakeStream:  # noqa: N802 - gRPC's name
        stream = self.calls[request.image] = FakeStream()
        self.order.append(request.image)
        if request.image == POISON:
            threading.Timer(0.05, self.kill).start()
        return stream

    def stream(self, image: bytes) -> FakeStream:
        """The call about an image, once it is there."""
        wait_for(lambda: image in self.calls)
        return self.calls[image]

    def complete(self, image: bytes) -> None:
        self.calls[image].end(grpc.StatusCode.OK, GenerateResponse(text=image.decode()))

    def Heartbeat(self, request: HeartbeatRequest, timeout: float):  # noqa: N802, ARG002 - gRPC's name
        self.plans.append(list(request.plans))
        if self.exit_status is not None:
            error = FakeCall()
            error.end(grpc.StatusCode.UNAVAILABLE)
            raise error
        return HeartbeatResponse(seconds_without_progress=self.seconds_without_progress)

    def SetAdapters(self, request: SetAdaptersRequest, timeout: float) -> SetAdaptersResponse:  # noqa: N802 - gRPC's name
        assert self.may_load.wait(min(timeout, WAIT))
        names = [source.name for source in request.adapters]
        self.adapters.append(names)
        if self.crashing_adapter in names:
            self.kill()
        if self.exit_status is not None:
            error = FakeCall()
            error.end(grpc.StatusCode.UNAVAILABLE, "connection reset")
            raise error
        response = SetAdaptersResponse()
        for name in names:
            error = self.adapter_errors.get(name, "")
            served = {} if error else {"rank": 8, "bytes": 1000, "served": True}
            response.adapters.add(name=name, error=error or self.former.get(name, ""), **served)
        return response

    def kill(self) -> None:
        self.exit_status = -9
        for call in list(self.calls.values()):
            call.end(grpc.StatusCode.UNAVAILABLE, "connection reset")

    def stop(self) -> None:
        self.kill()
        self.stopped = True


@dataclass
class Fleet:
    """Launches fake engines, and observes the supervisor."""

    planned: list[FakeEngine | EngineStartError] = field(default_factory=list)
    engines: list[FakeEngine] = field(default_factory=list)
    infos: list[EngineInfo] = field(default_factory=list)
    restarts: int = 0
    resubmissions: int = 0
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
        """The engine of that number, counted from 0, once it is launched."""
        with self.launched:
            assert self.launched.wait_for(lambda: len(self.engines) > number, WAIT)
            return self.engines[number]

    def count_restart(self) -> None:
        self.restarts += 1

    def count_resubmission(self) -> None:
        self.resubmissions += 1

    def observe_start(self, info: EngineInfo) -> None:
        self.infos.append(info)

    def observe_heartbeat(self, _heartbeat) -> None:
        self.heartbeats += 1


def generation_about(image: str | bytes) -> PendingGeneration:
    image = image if isinstance(image, bytes) else image.encode()
    return PendingGeneration(GenerateRequest(image=image), describe=lambda: f"image {image.decode()}")


def submitted(supervisor: EngineSupervisor, *images: str | bytes) -> list[PendingGeneration]:
    generations = [generation_about(image) for image in images]
    for generation in generations:
        supervisor.submit(generation)
    return generations


def wait_for(condition, seconds: int = WAIT) -> None:
    for _ in range(seconds * 100):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition did not become true in time")


def text_of(generation: PendingGeneration) -> str:
    return generation.completion.result(WAIT).text
