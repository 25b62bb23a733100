"""The metric of the stubs themselves, which one of the stubs for health exports for all of them.

The metrics that a stub exports stay in tritonserver, as they were, when the stub is killed.
"""

import logging
from typing import TYPE_CHECKING

from florence2_server.stub.health import UNREACHABLE
from florence2_server.stub.health_report import Report
from florence2_server.stub.metrics import Gauge

if TYPE_CHECKING:
    from florence2_server.stub.triton import Triton

_logger = logging.getLogger(__name__)


class StubMetrics:
    """Shows which stubs of served models respond, and logs each change.

    A stub has no time series before all models have loaded, because a metric must not change while Triton waits for a
    stub to load its model. One that has stopped in order is no longer observed, and its time series stays as it is.

    Args:
        triton: where the metric is exported. Its own labels must be none.
    """

    def __init__(self, triton: "Triton") -> None:
        self._up = triton.gauge(
            "florence2_stub_up", "1 if the stub that supervises the engine responds, 0 if only a restart helps"
        )
        self._gauges: dict[tuple[str, str], Gauge] = {}
        self._unreachable: set[tuple[str, str]] = set()

    def show(self, report: Report) -> None:
        """Show what was observed."""
        if not report.is_observed or report.is_loading:
            return
        for info in report.models:
            for engine in info.engines:
                self._show(info.model, engine.name, is_up=engine.state != UNREACHABLE)

    def _show(self, model: str, engine: str, *, is_up: bool) -> None:
        key = (model, engine)
        if is_up and key in self._unreachable:
            self._unreachable.remove(key)
            _logger.info("%s: engine %s: its stub responds again", model, engine)
        elif not is_up and key not in self._unreachable:
            self._unreachable.add(key)
            _logger.error(
                "%s: engine %s: its stub does not respond; if it was killed, only a restart of the server helps",
                model,
                engine,
            )
        if key in self._gauges:
            self._gauges[key].set(is_up)
        else:
            self._gauges[key] = Gauge(self._up.with_labels(model=model, engine=engine), is_up)
