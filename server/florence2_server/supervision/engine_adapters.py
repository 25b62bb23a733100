"""Has each engine serve the adapters that are wanted, and knows what became of them."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import grpc

from florence2_server.supervision.engine_process import EngineStartError
from florence2_server.v1.engine_pb2 import AdapterSource, AdapterStatus, SetAdaptersRequest
from florence2_server.v1.engine_pb2_grpc import EngineServiceStub

_logger = logging.getLogger(__name__)

# A crash has many causes. Two while the same files are loaded for the first time have one.
_CRASHES = 2
# What could not be served may have been in a folder that could not be reached, or have needed memory that is free now.
_FIRST_RETRY_SECONDS = 10.0
_MAX_RETRY_SECONDS = 600.0
_CRASHED = "the engine crashed each time it was loaded; it is tried again when its files change"


class Origin(Enum):
    """Why an adapter is wanted: a pair of the setting, the folder that the setting names, or an operator's command."""

    SETTING = "setting"
    FOLDER = "folder"
    COMMAND = "command"


@dataclass(frozen=True)
class WantedAdapter:
    """An adapter that engines are to serve.

    Attributes:
        name: what requests call it.
        source: the folder or the hub id that it is read from.
        version: differs if the folder's files do.
        origin: why it is wanted.
    """

    name: str
    source: str
    version: str
    origin: Origin


Statuses = Mapping[WantedAdapter, AdapterStatus]


class EngineAdapters:
    """Has each engine serve the adapters that are wanted. Thread-safe.

    Args:
        wanted: the adapters; if there are more than an engine may have, the first ones are served.
        timeout: seconds within which an engine has to load them.
        on_change: called with the statuses of those that are served, on the thread of the change.
        retry_seconds: after how long those that could not be served are tried again; then twice that, and so on.
    """

    def __init__(
        self,
        wanted: Callable[[], Sequence[WantedAdapter]] = tuple,
        timeout: float = 0.0,
        on_change: Callable[[Sequence[AdapterStatus]], None] = lambda _: None,
        retry_seconds: float = _FIRST_RETRY_SECONDS,
    ) -> None:
        self._wanted = wanted
        self._timeout = timeout
        self._on_change = on_change
        self._changing = threading.Lock()  # held while an engine loads
        self._engine: EngineServiceStub | None = None
        self._requested: tuple[WantedAdapter, ...] = ()  # of this engine
        self._tried: set[WantedAdapter] = set()  # those that an engine has survived
        self._crashes: Counter[WantedAdapter] = Counter()
        self._statuses: Statuses = {}
        self._first_retry_seconds = self._retry_seconds = retry_seconds
        self._retry_at = math.inf

    @property
    def statuses(self) -> Statuses:
        """What became of the adapters that were last wanted."""
        return self._statuses

    @property
    def served(self) -> list[AdapterStatus]:
        """Those that requests can name, by name."""
        return sorted((each for each in self._statuses.values() if each.served), key=lambda status: status.name)

    def start(self, engine: EngineServiceStub, *, is_first: bool) -> None:
        """Have a new engine serve the adapters, before it is sent generations.

        Args:
            engine: its methods.
            is_first: whether no engine has been ready before. Then the pairs of the setting have to be served.

        Raises:
            EngineStartError: the engine was lost, or a pair of the setting cannot be served.
        """
        with self._changing:
            self._engine, self._requested, self._retry_seconds = engine, (), self._first_retry_seconds
            try:
                self._request(engine, tuple(self._wanted()))
            except grpc.RpcError as error:
                raise EngineStartError(f"adapters: they cannot be loaded: {_reason(error)}") from None
        for wanted, status in self._statuses.items():
            if is_first and status.error and wanted.origin is Origin.SETTING:
                raise EngineStartError(f"adapters: {wanted.name}: {status.error}")

    def update(self) -> None:
        """Have the engine serve what is wanted now. Without one, or if it is lost, the next engine will.

        What could not be served is tried again after a while.
        """
        with self._changing:
            wanted = tuple(self._wanted())
            if self._engine is None or (wanted == self._requested and time.monotonic() < self._retry_at):
                return
            self._retry_later(is_change=wanted != self._requested)
            try:
                self._request(self._engine, wanted)
            except grpc.RpcError as error:
                if not _is_lost(error):
                    self._requested = wanted  # the next try at once would end as this one did
                    _logger.error("the adapters cannot be changed: %s", _reason(error))
            except ValueError:
                pass  # the connection to a lost engine has been closed

    def _request(self, engine: EngineServiceStub, wanted: tuple[WantedAdapter, ...]) -> None:
        """Have an engine serve these adapters and no others. The lock is held."""
        crashing = [each for each in wanted if self._crashes[each] >= _CRASHES]
        sent = [each for each in wanted if each not in crashing]
        statuses = {each: AdapterStatus(name=each.name, error=_CRASHED) for each in crashing}
        suspects = [each for each in sent if self._crashes[each]]
        for later in (suspects[index:] for index in range(1, len(suspects))):  # one by one, to find the cause
            self._set(engine, [each for each in sent if each not in later])
        if sent or self._requested:  # a new engine has none
            statuses |= zip(sent, self._set(engine, sent), strict=True)
        self._requested = wanted
        self._tried.intersection_update(sent)
        self._crashes = Counter({each: self._crashes[each] for each in crashing})
        self._show({each: statuses[each] for each in wanted})
        may_succeed = any(status.error not in ("", _CRASHED) for status in statuses.values())
        self._retry_at = time.monotonic() + self._retry_seconds if may_succeed else math.inf

    def _retry_later(self, *, is_change: bool) -> None:
        """Set the time of the next try, unless this one succeeds: exponential backoff, which a change starts anew."""
        doubled = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)
        self._retry_seconds = self._first_retry_seconds if is_change else doubled
        self._retry_at = time.monotonic() + self._retry_seconds

    def _set(self, engine: EngineServiceStub, sent: Sequence[WantedAdapter]) -> Sequence[AdapterStatus]:
        sources = [AdapterSource(name=each.name, folder=each.source, version=each.version) for each in sent]
        try:
            response = engine.SetAdapters(SetAdaptersRequest(adapters=sources), timeout=self._timeout)
        except grpc.RpcError as error:
            if _is_lost(error):
                self._crashes.update(each for each in sent if each not in self._tried)
            raise
        self._tried.update(sent)
        return list(response.adapters)

    def _show(self, statuses: Statuses) -> None:
        """Note the statuses, and log those that differ from the former ones."""
        before, self._statuses = self._statuses, statuses
        names = {status.name for status in self.served}
        for each in (status for status in before.values() if status.served and status.name not in names):
            _logger.info("adapter %r is no longer served", each.name)
        for wanted, status in statuses.items():
            known = before.get(wanted)
            if known is not None and bool(known.error) == bool(status.error):
                continue
            if status.error:
                former = "; the former version is served" if status.served else ""
                _logger.warning("adapter %r cannot be served: %s%s", status.name, status.error, former)
            else:
                _logger.info("adapter %r is served: rank %d, %d bytes", status.name, status.rank, status.bytes)
        self._on_change(self.served)


def _is_lost(error: grpc.RpcError) -> bool:
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def _reason(error: grpc.RpcError) -> str:
    return f"{error.details()} ({error.code().name})"
