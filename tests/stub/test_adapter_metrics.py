"""The time series of adapters: which there are, and for how long."""

import gc
import weakref

import pytest
from florence2_server.stub.adapter_metrics import AdapterMetrics
from florence2_server.v1.engine_pb2 import AdapterStatus, HeartbeatResponse


class FakeMetric:
    """A time series, which is on the page as long as something refers to its family, as Triton's are."""

    def __init__(self, labels) -> None:
        self.labels = dict(labels)
        self.value = 0.0

    def set(self, value) -> None:
        self.value = value

    def increment(self, value) -> None:
        self.value += value


@pytest.fixture
def page(triton, monkeypatch):
    """A function that returns the time series of a metric: values by labels."""
    families = {}

    class Family:
        COUNTER, GAUGE, HISTOGRAM = range(3)

        def __init__(self, name, **_arguments) -> None:
            families.setdefault(name, weakref.WeakSet()).add(self)
            self.metrics = []

        def Metric(self, labels):  # noqa: N802 - Triton's name
            metric = FakeMetric(labels)
            self.metrics.append(metric)
            return metric

    def page(name: str) -> dict[tuple[str, ...], float]:
        gc.collect()
        metrics = [metric for family in families[name] for metric in family.metrics]
        return {tuple(metric.labels.values()): metric.value for metric in metrics}

    monkeypatch.setattr(triton.pb_utils, "MetricFamily", Family, raising=False)
    return page


@pytest.fixture
def metrics(triton, page):  # noqa: ARG001 - replaces Triton's families first
    return AdapterMetrics(triton.Triton({}), most=32)


def served(*names: str) -> list[AdapterStatus]:
    return [AdapterStatus(name=name, rank=8, bytes=100 + index, served=True) for index, name in enumerate(names)]


REQUESTS, BYTES, LOAD = "florence2_adapter_requests_total", "florence2_adapter_bytes", "florence2_lora_requests_info"


def test_what_is_served_is_shown(metrics, page):
    assert page("florence2_adapters") == {(): 0}
    metrics.show_served(served("a", "b"))
    assert (page("florence2_adapters"), page(BYTES)) == ({(): 2}, {("a",): 100, ("b",): 101})
    metrics.show_served(served("b"))
    assert (page("florence2_adapters"), page(BYTES)) == ({(): 1}, {("b",): 100})


def test_names_of_callers_are_no_labels(metrics, page):
    metrics.show_served(served("a"))
    for name in ("a", "a", "made up", "made up too"):
        metrics.count(name, "ok" if name == "a" else "invalid_argument")
    assert page(REQUESTS) == {("a", "ok"): 2, ("(other)", "invalid_argument"): 2}


def test_a_removed_adapter_has_no_series_and_its_last_requests_are_counted_elsewhere(metrics, page):
    metrics.show_served(served("a", "b"))
    for outcome in ("ok", "internal"):
        metrics.count("a", outcome)
    metrics.count("b", "ok")
    metrics.show_served(served("b"))
    metrics.count("a", "ok")
    assert page(REQUESTS) == {("b", "ok"): 1, ("(other)", "ok"): 1}
    metrics.show_served(served("a", "b"))
    metrics.count("a", "ok")
    assert page(REQUESTS) == {("a", "ok"): 1, ("b", "ok"): 1, ("(other)", "ok"): 1}


def test_there_is_one_series_of_running_and_waiting_adapters(metrics, page, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1000.5)
    metrics.observe_heartbeat(HeartbeatResponse())
    assert page(LOAD) == {("32", "", ""): 1000.5}
    monkeypatch.setattr("time.time", lambda: 1001.5)
    metrics.observe_heartbeat(HeartbeatResponse(running_adapters=["b", "a"], waiting_adapters=["c"]))
    assert page(LOAD) == {("32", "a,b", "c"): 1001.5}
    monkeypatch.setattr("time.time", lambda: 1002.5)
    metrics.observe_heartbeat(HeartbeatResponse(running_adapters=["a", "b"], waiting_adapters=["c"]))
    assert page(LOAD) == {("32", "a,b", "c"): 1002.5}


def test_adapters_in_the_queue_wait_too_if_there_are_such(metrics, page):
    metrics.show_served(served("a", "b", "c"))
    metrics.watch_queue(lambda: {"", "b", "made up"})
    metrics.observe_heartbeat(HeartbeatResponse(running_adapters=["b"], waiting_adapters=["a", "b"]))
    assert list(page(LOAD)) == [("32", "b", "a,b")]
    metrics.observe_loss()
    assert list(page(LOAD)) == [("32", "", "b")]
