"""Load on a server, with every answer held against the right one."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import numpy as np
import tritonclient.grpc as triton
from florence2.v1 import TaskResponse
from tritonclient.grpc import service_pb2

from tests.server.conftest import ask
from tests.server.looks import seconds_until
from tests.server.wire_requests import MODEL_INFER, infer_request, only_element


class Callers:
    """Threads that ask one question after another, and hold each answer against the right one."""

    def __init__(self, server, questions, expected, callers: int) -> None:
        self._callers = callers
        self._server = server
        self._pairs = list(zip(questions, expected, strict=True))
        self._stop = threading.Event()
        self.asked = 0
        self.answered_at: list[float] = []
        self.wrong: list[str] = []

    def __enter__(self) -> "Callers":
        self._pool = ThreadPoolExecutor(self._callers)
        self._runs = [self._pool.submit(self._run, number) for number in range(self._callers)]
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._pool.shutdown()

    def outcomes(self) -> None:
        """Raise what a caller met."""
        for run in self._runs:
            run.result()

    def _run(self, number: int) -> None:
        with triton.InferenceServerClient(self._server.grpc_url) as client:
            while not self._stop.is_set():
                question, text = self._pairs[number % len(self._pairs)]
                number += self._callers + 1
                self.asked += 1
                answer = ask(client, question.image, question.request).text
                self.answered_at.append(time.monotonic())
                if answer != text:
                    self.wrong.append(f"{question}: {answer!r}")


@dataclass(frozen=True)
class Arrival:
    """What became of a request.

    Attributes:
        question: its index.
        service_seconds: what the engine says that it spent on it.
    """

    question: int
    priority: int
    seconds: float
    error: str | None = None
    text: str = ""
    service_seconds: float = 0.0


class Arrivals:
    """Requests that wait for nobody: one in twenty with priority 1, the others with 3.

    Each is serialized once, before any is sent: who has ten times a server's work to hand over may not be slow himself.

    Args:
        address: `host:port` of a server.
        questions: what is asked, in random order.
        rate: requests a second.
    """

    def __init__(self, address: str, questions, rate: float) -> None:
        self._requests = [
            {
                priority: infer_request(each.image, each.request.SerializeToString(), priority).SerializeToString()
                for priority in (1, 3)
            }
            for each in questions
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

    def __enter__(self) -> "Arrivals":
        return self

    def __exit__(self, *_) -> None:
        self._channel.close()

    def run(self, seconds: float) -> None:
        due = begin = time.monotonic()
        while due < begin + seconds:
            due += self._random.expovariate(self._rate)
            time.sleep(max(0.0, due - time.monotonic()))
            self._send(self._random.randrange(len(self._requests)), 1 if self._random.random() < 0.05 else 3)

    def _send(self, question: int, priority: int) -> None:
        self._sent += 1
        sent = time.monotonic()

        def arrive(call) -> None:
            seconds = time.monotonic() - sent
            if call.code() is not grpc.StatusCode.OK:
                self._arrived.append(Arrival(question, priority, seconds, error=str(call.code())))
                return
            (column,) = call.result().raw_output_contents
            response = TaskResponse.FromString(only_element(column))
            service = (response.usage.encode_milliseconds + response.usage.decode_milliseconds) / 1000
            self._arrived.append(Arrival(question, priority, seconds, None, response.text, service))

        self._infer.future(self._requests[question][priority]).add_done_callback(arrive)

    def outcomes(self) -> list[Arrival]:
        """All of them, waited for."""
        seconds_until(lambda: len(self._arrived) == self._sent)
        return self._arrived


def percentile(values, percent: float) -> float:
    return float(np.percentile(values, percent))
