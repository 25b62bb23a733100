"""The health of all served models of a tritonserver: observed again and again, and reported."""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from florence2.v1 import EngineInfo, ServerInfo
from google.protobuf.json_format import MessageToDict

from florence2_server.stub.health import FAILED, RUNNING, STARTING, UNREACHABLE, server_info, state_of

_POLL_SECONDS = 0.5
# No probe waits for it, and a machine whose cores are all busy must not look as if a restart would help.
_TIMEOUT_SECONDS = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """The health of the served models at one moment.

    Attributes:
        models: what is known of each model that the tritonserver should have; no engines if its stubs have not started.
        is_observed: False if the models are only presumed to be unreachable, because nothing could be observed.
    """

    models: tuple[ServerInfo, ...]
    is_observed: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(info.model for info in self.models)

    @property
    def is_loading(self) -> bool:
        """Whether any engine loads its checkpoint for the first time."""
        return any(map(_is_loading, self.models))

    @property
    def is_alive(self) -> bool:
        """False if only a restart of the tritonserver helps. A model that is loading is alive."""
        return not {FAILED, UNREACHABLE} & set(map(state_of, self.models))

    def is_ready(self, model: str | None = None) -> bool:
        """Whether requests to a model, or to all models, are answered now.

        Triton accepts no requests before each engine of all models has loaded its checkpoint.
        """
        return not self.is_loading and all(state_of(info) == RUNNING for info in self.about(model).models)

    def about(self, model: str | None) -> "Report":
        """The part of the report about a model; all of it for None."""
        if model is None:
            return self
        return replace(self, models=tuple(info for info in self.models if info.model == model))

    def to_json(self) -> str:
        """The state, the version and the engines of each model."""
        return json.dumps({"models": {info.model: _described(info) for info in self.models}}) + "\n"


class Poller:
    """Observes the models in a thread of its own, again and again.

    If that fails, all models are reported as unreachable, as they are when the thread ends: an observation that is out
    of date never remains.

    Args:
        models: the names of the models that the tritonserver should have.

    Attributes:
        report: the last observation; before the first, no engines are known.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self.report = Report(tuple(ServerInfo(model=model) for model in models))
        self._models = models
        self._stopping = threading.Event()
        self._executor = ThreadPoolExecutor(max(len(models), 1), thread_name_prefix="health")
        self._thread: threading.Thread | None = None

    def start(self, publish: Callable[[Report], None]) -> None:
        """Start to observe, and call a function with each report."""
        self._thread = threading.Thread(target=self._run, args=(publish,), name="health-poller", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop observing; the last report is that all models are unreachable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._executor.shutdown()

    def _run(self, publish: Callable[[Report], None]) -> None:
        try:
            while not self._stopping.is_set():
                self.report = self._observe()
                publish(self.report)
                self._stopping.wait(_POLL_SECONDS)
        finally:
            self.report = self._unknown()
            publish(self.report)

    def _observe(self) -> Report:
        try:
            return Report(tuple(self._executor.map(_info, self._models)))
        except Exception:  # noqa: BLE001 - whatever it is, health must not remain as it was
            _log.exception("the state of the engines cannot be observed")
            return self._unknown()

    def _unknown(self) -> Report:
        unknown = EngineInfo(state=UNREACHABLE)
        models = tuple(ServerInfo(model=model, engines=[unknown]) for model in self._models)
        return Report(models, is_observed=False)


def _info(model: str) -> ServerInfo:
    return server_info(model, _TIMEOUT_SECONDS)


def _is_loading(info: ServerInfo) -> bool:
    """Whether an engine loads its checkpoint for the first time, after which it is known how many slots it has."""
    return not info.engines or any(engine.state == STARTING and not engine.slots for engine in info.engines)


def _described(info: ServerInfo) -> dict[str, Any]:
    described = MessageToDict(info, always_print_fields_with_no_presence=True)
    del described["model"]
    return {"state": state_of(info), **described}
