"""Which adapters engines have, and when. The engines are fakes."""

import logging
import threading
import time

import grpc
import pytest
from florence2_server.config import SupervisionConfig
from florence2_server.supervision.engine_adapters import EngineAdapters, Origin, WantedAdapter
from florence2_server.supervision.engine_process import EngineStartError
from florence2_server.supervision.supervisor import EngineState, EngineSupervisor

from tests.supervision.fleet import WAIT, FakeCall, FakeEngine, submitted, text_of, wait_for


def wanted_adapter(name: str, version: str = "1", origin: Origin = Origin.FOLDER) -> WantedAdapter:
    return WantedAdapter(name, f"/adapters/{name}", version, origin)


class Adapters:
    """What a test wants, what engines serve, and what is shown."""

    def __init__(self, *names: str, origin: Origin = Origin.FOLDER) -> None:
        self.wanted = [wanted_adapter(name, origin=origin) for name in names]
        self.shown: list[list[str]] = []
        self.engine = EngineAdapters(lambda: list(self.wanted), 60, self._show)

    def _show(self, served) -> None:
        self.shown.append([status.name for status in served])

    @property
    def served(self) -> list[str]:
        return [status.name for status in self.engine.served]

    def errors(self) -> dict[str, str]:
        return {status.name: status.error for status in self.engine.statuses.values() if status.error}


@pytest.fixture
def supervise(fleet):
    started = []

    def supervise(adapters: Adapters, **limits) -> EngineSupervisor:
        supervisor = EngineSupervisor(fleet.launch, SupervisionConfig(**limits), fleet, adapters.engine)
        supervisor.start()
        started.append(supervisor)
        return supervisor

    yield supervise
    for supervisor in started:
        supervisor.close()


def test_an_engine_has_its_adapters_before_it_is_ready(supervise, fleet):
    adapters = Adapters("b", "a")
    supervisor = supervise(adapters)
    assert fleet.engine(0).adapters == [["b", "a"]]
    assert supervisor.state is EngineState.RUNNING
    assert list(supervisor.info.adapters) == adapters.served == ["a", "b"]
    assert adapters.shown == [["a", "b"]]


def test_without_adapters_an_engine_is_not_asked(supervise, fleet):
    supervise(Adapters())
    assert fleet.engine(0).adapters == []


def test_a_restarted_engine_has_the_same_adapters_before_it_is_sent_generations(supervise, fleet):
    adapters = Adapters("a", "b")
    second = FakeEngine()
    second.may_load.clear()
    fleet.planned = [FakeEngine(), second]
    supervisor = supervise(adapters)
    adapters.wanted.append(wanted_adapter("c"))
    adapters.engine.update()
    (generation,) = submitted(supervisor, "x")
    fleet.engine(0).kill()
    fleet.engine(1)
    wait_for(lambda: supervisor.state is EngineState.STARTING)
    assert not second.order
    second.may_load.set()
    wait_for(lambda: second.order)
    assert second.adapters == [["a", "b", "c"]]
    second.complete(b"x")
    assert text_of(generation) == "x"
    assert list(supervisor.info.adapters) == ["a", "b", "c"]


def test_a_change_reaches_the_engine_once(supervise, fleet):
    adapters = Adapters("a")
    supervise(adapters)
    adapters.engine.update()
    adapters.wanted = [wanted_adapter("a", "2"), wanted_adapter("b")]
    adapters.engine.update()
    adapters.engine.update()
    adapters.wanted = []
    adapters.engine.update()
    adapters.engine.update()
    assert fleet.engine(0).adapters == [["a"], ["a", "b"], []]
    assert adapters.shown == [["a"], ["a", "b"], []]


def test_loading_does_not_hold_up_heartbeats_and_generations(supervise, fleet):
    adapters = Adapters("a")
    supervisor = supervise(adapters)
    engine = fleet.engine(0)
    engine.may_load.clear()
    adapters.wanted.append(wanted_adapter("b"))
    change = threading.Thread(target=adapters.engine.update)
    change.start()
    before = fleet.heartbeats
    (generation,) = submitted(supervisor, "x")
    engine.complete(b"x")
    assert text_of(generation) == "x"
    wait_for(lambda: fleet.heartbeats > before)
    assert adapters.served == ["a"]
    engine.may_load.set()
    change.join(WAIT)
    assert adapters.served == ["a", "b"]


def test_a_pair_of_the_setting_that_cannot_be_loaded_ends_the_start(fleet, supervise):
    engine = FakeEngine()
    engine.adapter_errors = {"b": "adapter '/adapters/b': adapter_config.json is missing"}
    fleet.planned = [engine]
    with pytest.raises(EngineStartError, match=r"^adapters: b: adapter '/adapters/b': adapter_config.json is missing$"):
        supervise(Adapters("a", "b", origin=Origin.SETTING))
    assert engine.stopped


def test_after_the_start_the_others_are_served_without_it(fleet, supervise, caplog):
    adapters = Adapters("a", "b", origin=Origin.SETTING)
    second = FakeEngine()
    second.adapter_errors = {"b": "it is gone"}
    fleet.planned = [FakeEngine(), second]
    supervisor = supervise(adapters)
    with caplog.at_level(logging.INFO):
        fleet.engine(0).kill()
        fleet.engine(1)
        wait_for(lambda: adapters.served == ["a"])
    wait_for(lambda: supervisor.state is EngineState.RUNNING)
    assert (len(fleet.engines), adapters.served) == (2, ["a"])
    messages = [record.getMessage() for record in caplog.records]
    assert "adapter 'b' is no longer served" in messages
    assert "adapter 'b' cannot be served: it is gone" in messages


def test_each_version_is_reported_once(fleet, supervise, caplog):
    engine = FakeEngine()
    engine.adapter_errors = {"bad": "rank: got 65, expected at most 64"}
    fleet.planned = [engine]
    adapters = Adapters("bad", "a")
    with caplog.at_level(logging.INFO, "florence2_server.supervision.engine_adapters"):
        supervise(adapters)
        adapters.wanted.append(wanted_adapter("b"))
        adapters.engine.update()
        adapters.wanted[0] = wanted_adapter("bad", "2")
        adapters.engine.update()
        del adapters.wanted[1]
        adapters.engine.update()
    warning = (logging.WARNING, "adapter 'bad' cannot be served: rank: got 65, expected at most 64")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        warning,
        (logging.INFO, "adapter 'a' is served: rank 8, 1000 bytes"),
        (logging.INFO, "adapter 'b' is served: rank 8, 1000 bytes"),
        warning,
        (logging.INFO, "adapter 'a' is no longer served"),
    ]
    assert adapters.served == ["b"]


def test_a_restart_with_the_same_adapters_is_not_reported(fleet, supervise, caplog):
    adapters = Adapters("a")
    supervisor = supervise(adapters)
    with caplog.at_level(logging.INFO, "florence2_server.supervision.engine_adapters"):
        fleet.engine(0).kill()
        fleet.engine(1)
        wait_for(lambda: fleet.engine(1).adapters and supervisor.state is EngineState.RUNNING)
    assert not [record for record in caplog.records if record.name.endswith("engine_adapters")]


def engines_that_crash_with(adapter: str) -> list[FakeEngine]:
    engines = [FakeEngine() for _ in range(5)]
    for engine in engines:
        engine.crashing_adapter = adapter
    return engines


def test_a_new_adapter_that_crashes_engines_is_left_out(fleet, supervise):
    adapters = Adapters("a")
    fleet.planned = engines_that_crash_with("bad")
    supervisor = supervise(adapters, max_backoff_seconds=1)
    adapters.wanted.append(wanted_adapter("bad"))
    adapters.engine.update()
    wait_for(lambda: fleet.engine(2).adapters and supervisor.state is EngineState.RUNNING)
    assert [engine.adapters for engine in fleet.engines] == [[["a"], ["a", "bad"]], [["a", "bad"]], [["a"]]]
    assert adapters.served == ["a"]
    assert "crashed each time" in adapters.errors()["bad"]
    for engine in fleet.engines:
        engine.crashing_adapter = ""
    adapters.wanted[1] = wanted_adapter("bad", "2")
    adapters.engine.update()
    assert adapters.served == ["a", "bad"]


def test_of_several_new_adapters_only_the_one_that_crashes_engines_is_left_out(fleet, supervise):
    adapters = Adapters("a")
    fleet.planned = engines_that_crash_with("bad")
    supervisor = supervise(adapters, max_backoff_seconds=1)
    adapters.wanted += [wanted_adapter(name) for name in ("b", "bad", "c")]
    adapters.engine.update()
    wait_for(lambda: adapters.served == ["a", "b", "c"] and supervisor.state is EngineState.RUNNING)
    assert [engine.adapters for engine in fleet.engines] == [
        [["a"], ["a", "b", "bad", "c"]],
        [["a", "b"], ["a", "b", "bad"]],
        [["a", "b"], ["a", "b", "c"]],
    ]
    assert "crashed each time" in adapters.errors()["bad"]


def test_an_engine_that_crashes_for_another_reason_keeps_its_adapters(fleet, supervise):
    adapters = Adapters("a")
    supervisor = supervise(adapters, max_restarts=100, max_backoff_seconds=1)
    for number in range(3):
        fleet.engine(number).kill()
        adapters.engine.update()
        following = fleet.engine(number + 1)
        wait_for(lambda following=following: following.adapters and supervisor.state is EngineState.RUNNING)
    assert adapters.served == ["a"]


def test_an_engine_that_refuses_a_change_is_not_asked_again_and_again(fleet, supervise, caplog):
    adapters = Adapters("a")
    supervise(adapters)

    def fail(*_, **__):
        error = FakeCall()
        error.end(grpc.StatusCode.UNKNOWN, "a bug")
        calls.append(error)
        raise error

    calls = []
    fleet.engine(0).SetAdapters = fail
    adapters.wanted.append(wanted_adapter("b"))
    for _ in range(3):
        adapters.engine.update()
    assert len(calls) == 1
    assert "the adapters cannot be changed: a bug (UNKNOWN)" in caplog.text
    assert adapters.served == ["a"]


def test_a_start_during_which_the_engine_is_lost_fails(fleet, supervise):
    engine = FakeEngine()
    engine.crashing_adapter = "a"
    fleet.planned = [engine]
    with pytest.raises(EngineStartError, match=r"^adapters: they cannot be loaded: connection reset \(UNAVAILABLE\)$"):
        supervise(Adapters("a"))
    assert engine.stopped


def test_what_could_not_be_served_is_tried_again(fleet, supervise):
    adapters = Adapters("a", "b")
    adapters.engine = EngineAdapters(lambda: list(adapters.wanted), 60, adapters._show, retry_seconds=0.2)
    engine = FakeEngine()
    engine.adapter_errors = {"b": "the folder cannot be reached"}
    fleet.planned = [engine]
    supervise(adapters)
    adapters.engine.update()
    assert len(engine.adapters) == 1, "not at once"
    begin = time.monotonic()
    while len(engine.adapters) < 4 and time.monotonic() < begin + WAIT:
        adapters.engine.update()
        time.sleep(0.01)
    assert time.monotonic() - begin > 1, "after 0.2, 0.4 and 0.8 seconds"
    engine.adapter_errors = {}
    wait_for(lambda: adapters.engine.update() or adapters.served == ["a", "b"])


def test_a_former_version_that_an_engine_still_serves_is_served(fleet, supervise, caplog):
    adapters = Adapters("a")
    engine = FakeEngine()
    fleet.planned = [engine, FakeEngine()]
    fleet.planned[1].adapter_errors = {"a": "it is damaged"}
    supervisor = supervise(adapters)
    engine.former = {"a": "it is damaged"}
    adapters.wanted = [wanted_adapter("a", "2")]
    with caplog.at_level(logging.INFO, "florence2_server.supervision.engine_adapters"):
        adapters.engine.update()
        assert (adapters.served, list(supervisor.info.adapters)) == (["a"], ["a"])
        assert adapters.errors() == {"a": "it is damaged"}
        engine.kill()
        wait_for(lambda: fleet.engine(1).adapters and supervisor.state is EngineState.RUNNING)
    assert adapters.served == []
    messages = [record.getMessage() for record in caplog.records if record.name.endswith("engine_adapters")]
    assert messages == [
        "adapter 'a' cannot be served: it is damaged; the former version is served",
        "adapter 'a' is no longer served",
    ]


def test_heartbeats_name_the_plans_that_are_under_way(fleet, supervise):
    supervisor = supervise(Adapters())
    supervisor.watch_plans(lambda: ["one", "two"])
    wait_for(lambda: ["one", "two"] in fleet.engine(0).plans)
