"""Reports about all models of a tritonserver, from engines that are served by this process."""

import json
import threading
import time

import pytest
from florence2.v1 import EngineInfo, ServerInfo
from florence2_server.stub import health_report
from florence2_server.stub.health_report import Poller, Report

WAIT_SECONDS = 5


def model(name: str, *states: str, slots: int = 4) -> ServerInfo:
    engines = [EngineInfo(name=str(number), state=state, slots=slots) for number, state in enumerate(states)]
    return ServerInfo(version="0.1.0", model=name, engines=engines)


LOADING = model("documents", "starting", slots=0)


@pytest.mark.parametrize(
    ("models", "is_alive", "is_ready"),
    [
        ([model("captions", "running")], True, True),
        ([model("captions", "running", "running")], True, True),
        ([model("captions", "running"), model("documents", "running")], True, True),
        ([model("captions", "running", "starting")], True, True),
        ([model("captions", "starting")], True, False),
        ([model("captions")], True, False),
        ([LOADING], True, False),
        ([model("captions", "running"), LOADING], True, False),
        ([model("captions", "failed")], False, False),
        ([model("captions", "unreachable")], False, False),
        ([model("captions", "running"), model("documents", "failed")], False, False),
        ([model("captions", "running", "failed")], False, False),
    ],
)
def test_health_depends_on_the_states_of_the_engines(models, is_alive, is_ready):
    report = Report(tuple(models))
    assert (report.is_alive, report.is_ready()) == (is_alive, is_ready)


def test_the_crash_of_one_model_leaves_the_other_ready():
    report = Report((model("captions", "running"), model("documents", "failed")))
    assert (report.is_ready("captions"), report.about("captions").is_alive) == (True, True)
    assert (report.is_ready("documents"), report.about("documents").is_alive) == (False, False)


def test_an_engine_that_nothing_is_known_of_leaves_other_models_ready():
    report = Report((model("captions", "running"), model("documents", "running", "unreachable")))
    report.models[1].engines[1].slots = 0
    assert (report.is_ready("captions"), report.is_ready("documents"), report.is_alive) == (True, False, False)


def test_no_model_is_ready_before_all_are_loaded_because_triton_opens_its_ports_then():
    report = Report((model("captions", "running"), LOADING))
    assert not report.is_ready("captions")
    report = Report((model("captions", "running"), model("documents", "starting")))
    assert report.is_ready("captions")


def test_a_model_with_two_engines_is_not_ready_before_both_are_loaded():
    half = model("captions", "running", "starting")
    half.engines[1].slots = 0
    assert not Report((half,)).is_ready()


def test_a_report_has_the_state_of_each_model_and_its_engines():
    models = json.loads(Report((model("captions", "running"), model("documents"))).to_json())["models"]
    assert models["documents"] == {"state": "starting", "version": "0.1.0", "engines": []}
    (engine,) = models["captions"]["engines"]
    assert (models["captions"]["state"], engine["state"], engine["slots"]) == ("running", "running", 4)
    assert engine["checkpoint"] == "", "empty fields are written too"


class Watched:
    """Collects reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self._arrived = threading.Condition()

    def publish(self, report: Report) -> None:
        with self._arrived:
            self.reports.append(report)
            self._arrived.notify_all()

    def wait_for(self, condition) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.reports and condition(self.reports[-1]), WAIT_SECONDS)


@pytest.fixture
def observe(monkeypatch):
    """`observe(function)`: a poller of `captions`, which observes what the function returns, and its reports."""
    pollers = []

    def start(server_info) -> tuple[Poller, Watched]:
        monkeypatch.setattr(health_report, "server_info", server_info)
        monkeypatch.setattr(health_report, "_POLL_SECONDS", 0.01)
        poller, watched = Poller(["captions"]), Watched()
        pollers.append(poller)
        poller.start(watched.publish)
        return poller, watched

    yield start
    for poller in pollers:
        poller.close()


def test_before_the_first_observation_a_model_is_alive_and_not_ready():
    report = Poller(["captions"]).report
    assert (report.names, report.is_alive, report.is_ready()) == (("captions",), True, False)


def test_each_observation_is_reported(observe):
    states = ["running"]
    poller, watched = observe(lambda name, _timeout: model(name, *states))
    watched.wait_for(lambda report: report.is_ready())
    states[0] = "starting"
    watched.wait_for(lambda report: report.is_alive and not report.is_ready())
    assert not poller.report.is_ready()


def test_an_observation_that_fails_makes_every_model_unreachable_until_one_succeeds(observe, caplog):
    failures = []

    def server_info(name, _timeout):
        if failures:
            raise failures[0]
        return model(name, "running")

    _, watched = observe(server_info)
    watched.wait_for(lambda report: report.is_ready())
    failures.append(RuntimeError("can't start new thread"))
    watched.wait_for(lambda report: not report.is_alive)
    assert "can't start new thread" in caplog.text
    failures.clear()
    watched.wait_for(lambda report: report.is_ready())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_observer_that_ends_leaves_no_model_ready(observe):
    def server_info(name, _timeout):
        if time.monotonic() > begin + 0.1:
            raise SystemExit
        return model(name, "running")

    begin = time.monotonic()
    poller, watched = observe(server_info)
    watched.wait_for(lambda report: not report.is_alive)
    assert not poller.report.is_ready()


def test_the_last_report_of_a_closed_observer_is_that_nothing_is_known(observe):
    poller, watched = observe(lambda name, _timeout: model(name, "running"))
    watched.wait_for(lambda report: report.is_ready())
    assert watched.reports[-1].is_observed
    poller.close()
    assert (watched.reports[-1].is_alive, watched.reports[-1].is_observed) == (False, False)
    assert not watched.reports[-1].about("captions").is_observed
