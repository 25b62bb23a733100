"""Keeps an engine running, and questions alive while engines die.

Engines die of what they are made for: native image decoders fed hostile bytes, out-of-memory kills, CUDA faults. When
one is gone or stuck, the next is started at once and every unanswered question is asked of it again, in the order of
arrival. Whoever was there when two engines died is asked alone from then on, and fails where a third one dies of it.
"""

import bisect
import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Protocol

import grpc
from florence2.engine.v1.engine_pb2 import HeartbeatRequest, HeartbeatResponse

from florence2_adapter.config import SupervisionConfig
from florence2_adapter.engine_process import EngineProcess, EngineStartError
from florence2_adapter.job import EngineCall, Job

_logger = logging.getLogger(__name__)

_HEARTBEAT_INTERVAL_SECONDS = 1.0
_FIRST_BACKOFF_SECONDS = 0.5
# The calls of a killed engine end within milliseconds, when its socket closes.
_CALLS_END_SECONDS = 10.0
# A call that nobody cancelled ends so when its connection breaks, or when an engine stops that nobody told to.
_OF_A_LOST_ENGINE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class EngineState(Enum):
    """How the engine is. FAILED: it cannot start or dies of all it is asked; it is started again all the same."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    CLOSED = "closed"


class Observer(Protocol):
    """Who shows how the engine is."""

    def observe_heartbeat(self, heartbeat: HeartbeatResponse) -> None:
        """The engine is well."""

    def count_restart(self) -> None:
        """An engine was lost."""

    def count_retried(self) -> None:
        """A question was with an engine that was lost, and is asked again of the next one."""


class EngineSupervisor:
    """One engine at a time.

    Args:
        launch: starts an engine process, which is not ready yet; raises EngineStartError where it cannot.
        config: limits.
        observer: told what an operator wants to know.
    """

    def __init__(self, launch: Callable[[], EngineProcess], config: SupervisionConfig, observer: Observer) -> None:
        self._launch = launch
        self._config = config
        self._observer = observer
        self._lock = threading.RLock()  # a call that is over already calls back while it is being sent
        self._engine: EngineProcess | None = None
        self._state = EngineState.STARTING
        self._reason = "the engine is starting"
        self._waiting: list[Job] = []  # in the order of arrival
        self._sent: set[Job] = set()
        self._all_returned = threading.Condition(self._lock)
        self._accepted = 0
        self._starts_without_answer = 0
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    @property
    def state(self) -> EngineState:
        """How the engine is, as far as is known."""
        return self._state

    def start(self) -> None:
        """Start the first engine and wait until it is ready.

        Raises:
            EngineStartError: it cannot start.
        """
        self._engine = self._launch()
        try:
            self._engine.wait_until_ready(self._config.start_seconds)
        except EngineStartError:
            self._engine.stop()
            raise
        self._state = EngineState.RUNNING
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Ask a question; its outcome tells of the answer."""
        with self._lock:
            if self._state in (EngineState.FAILED, EngineState.CLOSED):
                job.fail(grpc.StatusCode.UNAVAILABLE, self._reason)
                return
            self._accepted += 1
            job.number = self._accepted
            self._waiting.append(job)
            self._send_waiting()

    def close(self) -> None:
        """Stop the engine; what is unanswered ends with UNAVAILABLE."""
        with self._lock:
            self._give_up(EngineState.CLOSED, "the server is stopping")
            self._closing.set()
            engine = self._engine
        self._woken.set()
        if engine is not None:
            engine.stop()
        self._thread.join()

    def _send_waiting(self) -> None:
        """Send what may be sent: everything, but suspects one by one and with nobody beside them."""
        while self._waiting and self._state is EngineState.RUNNING:
            job = self._waiting[0]
            if self._sent and (job.is_suspect or any(sent.is_suspect for sent in self._sent)):
                return
            del self._waiting[0]
            if not job.outcome.cancelled():
                self._send(job)

    def _send(self, job: Job) -> None:
        engine = self._engine
        assert engine is not None, "a running engine is one"
        self._sent.add(job)
        call = engine.stub.Generate.future(job.request)
        job.sent(call)
        call.add_done_callback(partial(self._returned, job, engine))

    def _returned(self, job: Job, engine: EngineProcess, call: EngineCall) -> None:
        """A call is over; on a thread of gRPC's."""
        status = call.code()
        with self._lock:
            self._sent.discard(job)
            if not self._sent:
                self._all_returned.notify_all()
            if status in _OF_A_LOST_ENGINE and not job.outcome.cancelled():
                self._lose(engine)
                self._take_back(job)
                return
            if not job.outcome.cancelled():
                self._starts_without_answer = 0
            self._send_waiting()
        if status is grpc.StatusCode.OK:
            job.succeed(call.result())
        else:
            job.fail(status, call.details() or "the engine gave no reason")

    def _take_back(self, job: Job) -> None:
        """An engine was lost while it worked on a job."""
        if self._state in (EngineState.FAILED, EngineState.CLOSED):
            job.fail(grpc.StatusCode.UNAVAILABLE, self._reason)
        elif job.is_suspect:
            name = job.describe()
            _logger.error("the engine dies of one request, alone with it: %s", name)
            job.fail(grpc.StatusCode.INTERNAL, f"the engine dies of this request: {name}")
        else:
            job.crashes += 1
            self._observer.count_retried()
            bisect.insort(self._waiting, job, key=lambda waiting: waiting.number)

    def _lose(self, engine: EngineProcess) -> None:
        if engine is self._engine and self._state is EngineState.RUNNING:
            self._state, self._reason = EngineState.STARTING, "the engine is starting"
            self._woken.set()

    def _give_up(self, state: EngineState, reason: str) -> None:
        self._state, self._reason = state, reason
        waiting, self._waiting = self._waiting, []
        for job in waiting:
            job.fail(grpc.StatusCode.UNAVAILABLE, reason)

    def _watch(self) -> None:
        while not self._closing.is_set():
            try:
                self._look_after()
            except Exception:
                # Without this thread nobody would ever be told that an engine is gone, and all would wait for ever.
                _logger.exception("watching over the engine failed, and goes on")
                self._closing.wait(_HEARTBEAT_INTERVAL_SECONDS)

    def _look_after(self) -> None:
        if self._state is not EngineState.RUNNING:
            self._replace()
            return
        self._woken.wait(_HEARTBEAT_INTERVAL_SECONDS)
        self._woken.clear()
        if not self._closing.is_set():
            self._check()

    def _check(self) -> None:
        engine = self._engine
        assert engine is not None, "a running engine is one"
        fault = self._fault_of(engine)
        with self._lock:
            if fault is not None and not self._closing.is_set():
                _logger.error("%s; starting another", fault)
                self._lose(engine)

    def _replace(self) -> None:
        """End the engine that was lost, and start another."""
        self._end_lost()
        if self._starts_without_answer >= self._config.max_restarts:
            self._fail(f"the engine died {self._starts_without_answer} times without an answer in between")
        self._closing.wait(self._backoff())
        begin = time.monotonic()
        self._starts_without_answer += 1
        try:
            with self._lock:
                if self._closing.is_set():
                    return
                engine = self._engine = self._launch()
            engine.wait_until_ready(self._config.start_seconds)
        except EngineStartError as error:
            _logger.error("the engine cannot start: %s", error)
            self._fail(f"the engine cannot start: {error}")
            return
        _logger.warning("another engine is ready after %.2f s", time.monotonic() - begin)
        with self._lock:
            if not self._closing.is_set():
                self._state = EngineState.RUNNING
                self._send_waiting()

    def _end_lost(self) -> None:
        lost, self._engine = self._engine, None
        if lost is None:
            return
        self._observer.count_restart()
        lost.kill()
        with self._lock:  # their jobs wait for the next engine before it is there
            self._all_returned.wait_for(lambda: not self._sent, _CALLS_END_SECONDS)
        lost.stop()

    def _fault_of(self, engine: EngineProcess) -> str | None:
        """What is wrong with an engine; None where nothing is."""
        try:
            heartbeat = engine.stub.Heartbeat(HeartbeatRequest(), timeout=self._config.heartbeat_seconds)
        except grpc.RpcError as error:
            if engine.exit_status is not None:
                return f"the engine process ended with exit status {engine.exit_status}"
            return f"the engine gave no heartbeat within {self._config.heartbeat_seconds} s ({error.code().name})"
        if heartbeat.seconds_without_progress > self._config.stuck_seconds:
            return f"the engine has made no progress for {heartbeat.seconds_without_progress:.0f} s"
        self._observer.observe_heartbeat(heartbeat)
        return None

    def _fail(self, reason: str) -> None:
        with self._lock:
            if not self._closing.is_set():
                self._give_up(EngineState.FAILED, reason)

    def _backoff(self) -> float:
        if self._starts_without_answer == 0:
            return 0.0
        seconds: float = _FIRST_BACKOFF_SECONDS * 2 ** (self._starts_without_answer - 1)
        return min(seconds, self._config.max_backoff_seconds)
