"""Load on a server, with every answer checked."""

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import grpc
import numpy as np
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest, TaskResponse
from tritonclient.grpc import service_pb2

from tests.server.conftest import infer
from tests.server.observation import WAIT_SECONDS, seconds_until
from tests.server.wire_requests import MODEL_INFER, infer_request, only_element


class Callers:
    """A closed loop: threads that send one request after another and check each answer."""

    def __init__(self, server, cases, expected, callers: int) -> None:
        self._callers = callers
        self._server = server
        self._pairs = list(zip(cases, expected, strict=True))
        self._stop = threading.Event()
        self.sent = 0
        self.answered_at: list[float] = []
        self.wrong: list[str] = []

    def __enter__(self) -> "Callers":
        self._pool = ThreadPoolExecutor(self._callers)
        self._runs = [self._pool.submit(self._run, number) for number in range(self._callers)]
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._pool.shutdown()

    def raise_errors(self) -> None:
        """Raise what a thread raised."""
        for run in self._runs:
            run.result()

    def _run(self, number: int) -> None:
        with triton.InferenceServerClient(self._server.grpc_url) as client:
            while not self._stop.is_set():
                case, text = self._pairs[number % len(self._pairs)]
                number += self._callers + 1
                self.sent += 1
                answer = infer(client, case.image, case.request).text
                self.answered_at.append(time.monotonic())
                if answer != text:
                    self.wrong.append(f"{case}: {answer!r}")


@dataclass(frozen=True)
class Arrival:
    """A request of an open loop, after its end.

    Attributes:
        case: index of its case.
        service_seconds: the time that the engine reports for it, without queueing.
    """

    case: int
    priority: int
    seconds: float
    error: str | None = None
    text: str = ""
    service_seconds: float = 0.0


class OpenLoop:
    """An open loop: requests arrive at random times, one in twenty with priority 1 and the others with 3.

    They are serialized in advance: the sender of ten times a server's capacity must not be slow itself. As our clients
    do, they state their priority both in the request and to Triton.

    Args:
        address: `host:port` of a server.
        cases: the requests, sent in random order.
        rate: requests per second.
    """

    def __init__(self, address: str, cases, rate: float) -> None:
        self._requests = [
            {
                priority: infer_request(each.image, prioritized(each.request, priority), priority).SerializeToString()
                for priority in (1, 3)
            }
            for each in cases
        ]
        self._rate = rate
        self._random = random.Random(11)
        self._sent = 0
        self._arrived: list[Arrival] = []
        self._channel = grpc.insecure_channel(address)
        self._infer = self._channel.unary_unary(
            MODEL_INFER,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    def __enter__(self) -> "OpenLoop":
        return self

    def __exit__(self, *_) -> None:
        self._channel.close()

    def run(self, seconds: float) -> None:
        due = begin = time.monotonic()
        while due < begin + seconds:
            due += self._random.expovariate(self._rate)
            time.sleep(max(0.0, due - time.monotonic()))
            self._send(self._random.randrange(len(self._requests)), 1 if self._random.random() < 0.05 else 3)

    def _send(self, case: int, priority: int) -> None:
        self._sent += 1
        sent = time.monotonic()

        def arrive(call) -> None:
            seconds = time.monotonic() - sent
            if call.code() is not grpc.StatusCode.OK:
                self._arrived.append(Arrival(case, priority, seconds, error=str(call.code())))
                return
            (column,) = call.result().raw_output_contents
            response = TaskResponse.FromString(only_element(column))
            service = (response.usage.encode_milliseconds + response.usage.decode_milliseconds) / 1000
            self._arrived.append(Arrival(case, priority, seconds, None, response.text, service))

        self._infer.future(self._requests[case][priority]).add_done_callback(arrive)

    def wait(self) -> list[Arrival]:
        """Wait for all requests to end."""
        seconds_until(lambda: len(self._arrived) == self._sent)
        return self._arrived


@dataclass(frozen=True)
class Ending:
    """The end of one of many requests that were sent at once.

    Attributes:
        seconds: since it was sent.
        details: of an error.
        text: of an answer.
    """

    status: grpc.StatusCode
    seconds: float
    details: str = ""
    text: str = ""


def send_at_once(address: str, messages: Sequence[service_pb2.ModelInferRequest]) -> list[Ending]:
    """Send requests without waiting for each other. Returns how they ended, in the order of `messages`."""
    serialized = [message.SerializeToString() for message in messages]
    endings: list[Ending | None] = [None] * len(serialized)

    def end(number: int, sent: float, call) -> None:
        seconds = time.monotonic() - sent
        if call.code() is not grpc.StatusCode.OK:
            endings[number] = Ending(call.code(), seconds, details=call.details())
            return
        (column,) = call.result().raw_output_contents
        endings[number] = Ending(call.code(), seconds, text=TaskResponse.FromString(only_element(column)).text)

    with grpc.insecure_channel(address) as channel:
        send = channel.unary_unary(MODEL_INFER, response_deserializer=service_pb2.ModelInferResponse.FromString)
        for number, each in enumerate(serialized):
            send.future(each, timeout=WAIT_SECONDS).add_done_callback(partial(end, number, time.monotonic()))
        seconds_until(lambda: None not in endings, limit=WAIT_SECONDS + 10)
    return endings


def prioritized(request: TaskRequest, priority: int) -> bytes:
    """A request with a priority, serialized."""
    message = TaskRequest(priority=priority)
    message.MergeFrom(request)
    return message.SerializeToString()


def percentile(values, percent: float) -> float:
    return float(np.percentile(values, percent))
