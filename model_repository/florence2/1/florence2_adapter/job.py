"""One question to the engine, which outlives engines: it is asked again of the next one until there is an answer."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

import grpc
from florence2.engine.v1.engine_pb2 import GenerateRequest, GenerateResponse

# The name that types-grpcio has for it; grpc itself has none.
EngineCall: TypeAlias = "grpc._CallFuture[GenerateResponse]"

# Whom an engine's death struck twice in company is asked alone from then on: whoever kills it then is found.
_CRASHES_IN_COMPANY = 2


class EngineCallError(Exception):
    """The engine, or who watches over it, refuses an answer.

    Attributes:
        status: as gRPC has it.
    """

    def __init__(self, status: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.status = status


class Job:
    """A question, from the moment it has a slot to its answer.

    Args:
        request: what the engine is asked.
        describe: names the question in a log, for whoever has to find out what killed an engine.

    Attributes:
        number: in the order of arrival; set by who accepts the job.
        outcome: ends once: with the answer, an EngineCallError, or cancelled.
        crashes: how many engines died while they worked on it.
    """

    def __init__(self, request: GenerateRequest, describe: Callable[[], str]) -> None:
        self.request = request
        self.describe = describe
        self.number = 0
        self.outcome: Future[GenerateResponse] = Future()
        self.crashes = 0
        self._lock = threading.Lock()
        self._call: EngineCall | None = None

    @property
    def is_suspect(self) -> bool:
        """Whether it has to be alone with the engine: it may be what kills it."""
        return self.crashes >= _CRASHES_IN_COMPANY

    def sent(self, call: EngineCall) -> None:
        """An engine works on it."""
        with self._lock:
            self._call = call
        if self.outcome.cancelled():
            call.cancel()

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self.outcome.cancel()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    def succeed(self, answer: GenerateResponse) -> None:
        """The answer is there."""
        if self.outcome.set_running_or_notify_cancel():
            self.outcome.set_result(answer)

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """There will be no answer."""
        if self.outcome.set_running_or_notify_cancel():
            self.outcome.set_exception(EngineCallError(status, message))
