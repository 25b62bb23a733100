"""Supervises the engine: restarts it, and keeps generations alive across restarts.

What crashes engines: native image decoders fed hostile bytes, out-of-memory kills, CUDA faults. When an engine crashes
or hangs, the next one is started at once, and every generation in flight is resubmitted in the order of arrival. A
generation that was in flight in two crashes is from then on resubmitted alone, and fails if the engine crashes a third
time.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from enum import Enum
from functools import partial
from typing import Protocol, TypeAlias

import grpc
from florence2.v1 import EngineInfo

from florence2_server.config import SupervisionConfig
from florence2_server.supervision.engine_adapters import EngineAdapters
from florence2_server.supervision.engine_call import CallEnd, EngineCall
from florence2_server.supervision.engine_process import EngineProcess, EngineStartError, describe_exit
from florence2_server.supervision.pending_generation import GenerationQueue, PendingGeneration
from florence2_server.v1.engine_pb2 import HeartbeatRequest, HeartbeatResponse

_logger = logging.getLogger(__name__)

_HEARTBEAT_INTERVAL_SECONDS = 1.0
_FIRST_BACKOFF_SECONDS = 0.5
# The calls of a killed engine end within milliseconds, when its socket closes.
_CALLS_END_SECONDS = 10.0
# An engine that crashes closes its connection a moment before its process has ended.
_EXIT_SECONDS = 0.2


class EngineState(Enum):
    """The state of the engine. FAILED: it cannot start or keeps crashing; further restarts are tried all the same."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    CLOSED = "closed"


class Observer(Protocol):
    """Shows an operator the state of the engine."""

    def observe_start(self, info: EngineInfo) -> None:
        """Record what an engine serves that is ready now."""

    def observe_heartbeat(self, heartbeat: HeartbeatResponse) -> None:
        """Record the state of a responsive engine."""

    def count_restart(self) -> None:
        """Count a restart after a crash or a hang."""

    def count_resubmission(self) -> None:
        """Count a generation that is resubmitted because it was in flight in a crash."""


_Sent: TypeAlias = tuple[PendingGeneration, EngineProcess, EngineCall]


class EngineSupervisor:
    """Runs one engine at a time.

    Args:
        launch: starts an engine process, which is not ready yet; raises EngineStartError if it cannot.
        config: time limits and the number of restarts.
        observer: receives what an operator wants to know.
        adapters: has each engine load adapters before it is sent generations; by default none.
    """

    def __init__(
        self,
        launch: Callable[[], EngineProcess],
        config: SupervisionConfig,
        observer: Observer,
        adapters: EngineAdapters | None = None,
    ) -> None:
        self._launch = launch
        self._config = config
        self._observer = observer
        self._adapters = adapters or EngineAdapters()
        self._plans: Callable[[], Collection[str]] = tuple
        self._lock = threading.Lock()  # not held while a completion's or a call's callbacks run
        self._engine: EngineProcess | None = None
        self._state = EngineState.STARTING
        self._info = EngineInfo()
        self._reason = "the engine is starting"
        self._queue = GenerationQueue()
        self._none_in_flight = threading.Condition(self._lock)
        self._is_unexplained = False  # whether a call has lost the engine, which does not know why
        self._fruitless_starts = 0  # since a generation was last completed
        self._wake_up = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def state(self) -> EngineState:
        """The state of the engine, as far as it is known."""
        return self._state

    @property
    def info(self) -> EngineInfo:
        """What the engine serves, or the one before it; empty until the first is ready."""
        info = EngineInfo(adapters=[status.name for status in self._adapters.served])
        info.MergeFrom(self._info)
        return info

    def start(self) -> None:
        """Start the first engine and wait until it is ready.

        Raises:
            EngineStartError: it cannot start.
        """
        self._engine = self._launch()
        try:
            self._wait_until_ready(self._engine, is_first=True)
        except EngineStartError:
            self._engine.stop()
            raise
        self._state = EngineState.RUNNING
        self._thread.start()

    def watch_plans(self, plans: Callable[[], Collection[str]]) -> None:
        """Have the engine keep the adapters of the plans that a function names."""
        self._plans = plans

    def submit(self, generation: PendingGeneration) -> None:
        """Accept a generation. Its completion always ends; if there is no engine, with UNAVAILABLE."""
        with self._lock:
            rejection = self._rejection()
            if rejection is None:
                self._queue.add(generation)
            sent = self._send_waiting()
        if rejection is not None:
            generation.fail(grpc.StatusCode.UNAVAILABLE, rejection)
        self._follow(sent)

    def close(self) -> None:
        """Stop the engine; pending generations end with UNAVAILABLE."""
        self._closing.set()
        self._reject_waiting(EngineState.CLOSED, "the server is stopping")
        with self._lock:
            engine = self._engine
        self._wake_up.set()
        if engine is not None:
            engine.stop()
        self._thread.join()

    def _rejection(self) -> str | None:
        """Why generations are rejected; None if they are accepted. The lock is held."""
        return self._reason if self._state in (EngineState.FAILED, EngineState.CLOSED) else None

    def _send_waiting(self) -> list[_Sent]:
        """Send all generations that may be in flight now. The lock is held."""
        sent: list[_Sent] = []
        engine = self._engine
        if engine is not None and self._state is EngineState.RUNNING:
            while (generation := self._queue.launch()) is not None:
                sent.append((generation, engine, generation.call(engine.stub)))
        return sent

    def _follow(self, sent: list[_Sent]) -> None:
        """Have `_returned` called when each call has ended; at once if it already has."""
        for generation, engine, call in sent:
            generation.attach(call)
            call.follow(partial(self._returned, generation, engine))

    def _returned(self, generation: PendingGeneration, engine: EngineProcess, end: CallEnd) -> None:
        """Handle the end of a call, on a thread of gRPC's or the call's own."""
        is_cancelled = generation.completion.cancelled()
        if end.has_lost_engine and not is_cancelled:
            self._resubmit(generation, engine)
            return
        with self._lock:
            self._land(generation)
            if not is_cancelled:
                self._fruitless_starts = 0
            sent = self._send_waiting()
        self._follow(sent)
        if end.response is not None:
            generation.succeed(end.response)
        else:
            generation.fail(end.status, end.details)

    def _resubmit(self, generation: PendingGeneration, engine: EngineProcess) -> None:
        """Requeue a generation that was in flight when its engine was lost, or end it."""
        with self._lock:
            self._land(generation)
            self._is_unexplained |= self._lose(engine)
            rejection, is_culprit = self._rejection(), generation.is_suspect
            if rejection is None and not is_culprit:
                self._queue.requeue(generation)
            sent = self._send_waiting()
        self._follow(sent)
        if rejection is not None:
            generation.fail(grpc.StatusCode.UNAVAILABLE, rejection)
        elif is_culprit:
            name = generation.describe()
            _logger.error("one request crashes the engine: %s", name)
            generation.fail(grpc.StatusCode.INTERNAL, f"this request crashes the engine: {name}", is_culprit=True)
        else:
            self._observer.count_resubmission()

    def _land(self, generation: PendingGeneration) -> None:
        self._queue.land(generation)
        if not self._queue.is_any_in_flight:
            self._none_in_flight.notify_all()

    def _lose(self, engine: EngineProcess) -> bool:
        """Have an engine replaced unless it already is. Returns whether it was not. The lock is held."""
        is_new = engine is self._engine and self._state is EngineState.RUNNING
        if is_new:
            self._state, self._reason = EngineState.STARTING, "the engine is starting"
            self._wake_up.set()
        return is_new

    def _reject_waiting(self, state: EngineState, reason: str) -> None:
        """Enter a state in which no generation is accepted: CLOSED if the supervisor is closing."""
        with self._lock:
            if self._closing.is_set() and state is not EngineState.CLOSED:
                return
            self._state, self._reason = state, reason
            waiting = self._queue.clear()
        for generation in waiting:
            generation.fail(grpc.StatusCode.UNAVAILABLE, reason)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._supervise()
            except Exception:
                # Without this thread no lost engine would ever be noticed, and all callers would wait forever.
                _logger.exception("supervision of the engine failed, and continues")
                self._closing.wait(_HEARTBEAT_INTERVAL_SECONDS)

    def _supervise(self) -> None:
        if self._state is not EngineState.RUNNING:
            self._restart()
            return
        self._wake_up.wait(_HEARTBEAT_INTERVAL_SECONDS)
        self._wake_up.clear()
        if not self._closing.is_set():
            self._check()

    def _check(self) -> None:
        engine = self._engine
        assert engine is not None, "the state is RUNNING"
        fault = self._fault_of(engine)
        if fault is None or self._closing.is_set():
            return
        with self._lock:
            is_new = self._lose(engine)
        if is_new:  # else a call has lost it meanwhile, and the restart logs why
            _logger.error("%s; restarting it", fault)

    def _restart(self) -> None:
        """Replace a lost engine by a new one."""
        self._end_lost()
        if self._fruitless_starts >= self._config.max_restarts:
            reason = f"the engine was started {self._fruitless_starts} times without completing a request"
            self._reject_waiting(EngineState.FAILED, reason)
        if self._closing.wait(self._backoff()):
            return
        begin = time.monotonic()
        with self._lock:
            self._fruitless_starts += 1
        try:
            if not self._start_next():
                return
        except EngineStartError as error:
            _logger.error("the engine cannot start: %s", error)
            self._reject_waiting(EngineState.FAILED, f"the engine cannot start: {error}")
            return
        _logger.warning("the new engine is ready after %.2f s", time.monotonic() - begin)
        with self._lock:
            if not self._closing.is_set():
                self._state = EngineState.RUNNING
            sent = self._send_waiting()
        self._follow(sent)

    def _start_next(self) -> bool:
        """Start an engine and wait until it is ready; False if the supervisor is closing."""
        engine = self._launch()
        with self._lock:
            is_closing = self._closing.is_set()
            if not is_closing:
                self._engine = engine  # from here on, `close` stops it
        if is_closing:
            engine.stop()
            return False
        self._wait_until_ready(engine, is_first=False)
        return True

    def _wait_until_ready(self, engine: EngineProcess, *, is_first: bool) -> None:
        self._info = engine.wait_until_ready(self._config.start_seconds)
        self._adapters.start(engine.stub, is_first=is_first)
        self._observer.observe_start(self._info)

    def _end_lost(self) -> None:
        lost, self._engine = self._engine, None
        if lost is None:
            return
        self._observer.count_restart()
        if self._is_unexplained:
            fault = _exit_of(lost) or "the engine process closed its connection, and still runs"
            _logger.error("%s; restarting it", fault)
            self._is_unexplained = False
        lost.kill()
        with self._lock:  # what was in flight is to be waiting when the next engine is ready
            self._none_in_flight.wait_for(lambda: not self._queue.is_any_in_flight, _CALLS_END_SECONDS)
        lost.stop()

    def _fault_of(self, engine: EngineProcess) -> str | None:
        """What is wrong with an engine; None if it is healthy."""
        try:
            heartbeat = engine.stub.Heartbeat(
                HeartbeatRequest(plans=self._plans()), timeout=self._config.heartbeat_seconds
            )
        except grpc.RpcError as error:
            is_late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            within = f"within {self._config.heartbeat_seconds:g} s" if is_late else f"({error.code().name})"
            return _exit_of(engine) or f"the engine gave no heartbeat {within}, and its process still runs"
        if heartbeat.seconds_without_progress > self._config.stuck_seconds:
            return f"the engine has made no progress for {heartbeat.seconds_without_progress:.0f} s"
        self._observer.observe_heartbeat(heartbeat)
        return None

    def _backoff(self) -> float:
        """Seconds to wait before a start; they double with each fruitless one."""
        if self._fruitless_starts == 0:
            return 0.0
        seconds: float = _FIRST_BACKOFF_SECONDS * 2 ** (self._fruitless_starts - 1)
        return min(seconds, self._config.max_backoff_seconds)


def _exit_of(engine: EngineProcess) -> str | None:
    """Say how an engine's process ended that has just lost its connection; None if it still runs."""
    status = engine.exit_status_within(_EXIT_SECONDS)
    return None if status is None else f"the engine process {describe_exit(status)}"
