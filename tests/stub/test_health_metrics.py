"""Which stubs respond, as a time series of each, and in the log."""

import logging
from dataclasses import replace

import pytest
from florence2_server.stub.health_metrics import StubMetrics
from florence2_server.stub.health_report import Report

from tests.stub.health import report


class FakeGauges:
    """Triton with one gauge.

    Attributes:
        values: by model and engine.
    """

    def __init__(self) -> None:
        self.values = {}

    def gauge(self, _name: str, _description: str) -> "FakeGauges":
        return self

    def with_labels(self, model: str, engine: str):
        values = self.values

        class Series:
            def set(self, value: float) -> None:
                values[model, engine] = value

        return Series()


@pytest.fixture
def gauges():
    return FakeGauges()


@pytest.fixture
def metrics(gauges, caplog):
    caplog.set_level(logging.INFO)
    return StubMetrics(gauges)


def test_no_stub_has_a_time_series_before_all_models_have_loaded(metrics, gauges, caplog):
    loading = report(captions="running", documents="starting")
    loading.models[1].engines.pop()
    metrics.show(loading)
    assert gauges.values == {}
    metrics.show(report(captions="running", documents="running"))
    assert gauges.values == {("captions", "0"): 1, ("documents", "0"): 1}
    assert caplog.records == []


@pytest.mark.parametrize("state", ["running", "starting", "failed"])
def test_a_stub_whose_engines_state_is_known_is_up(metrics, gauges, state):
    metrics.show(report(captions=state))
    assert gauges.values == {("captions", "0"): 1}


def test_a_stub_that_does_not_respond_is_logged_once_until_it_does_again(metrics, gauges, caplog):
    metrics.show(report(captions="running", documents="running"))
    for _ in range(3):
        metrics.show(report(captions="unreachable", documents="running"))
    assert gauges.values == {("captions", "0"): 0, ("documents", "0"): 1}
    for _ in range(3):
        metrics.show(report(captions="running", documents="running"))
    assert gauges.values == {("captions", "0"): 1, ("documents", "0"): 1}
    gone, back = caplog.records
    assert (gone.levelname, back.levelname) == ("ERROR", "INFO")
    assert gone.getMessage() == (
        "captions: engine 0: its stub does not respond; if it was killed, only a restart of the server helps"
    )
    assert back.getMessage() == "captions: engine 0: its stub responds again"
    metrics.show(report(captions="unreachable"))
    assert len(caplog.records) == 3


def test_stubs_of_which_nothing_is_known_keep_their_values(metrics, gauges, caplog):
    metrics.show(report(captions="running"))
    metrics.show(replace(report(captions="unreachable"), is_observed=False))
    metrics.show(Report(()))  # stopped in order
    assert gauges.values == {("captions", "0"): 1}
    assert caplog.records == []
