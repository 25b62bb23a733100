"""The engines' state, from one stub to another; both are this process here, and so have the same parent."""

import stat
import threading
from dataclasses import dataclass, field

import pytest
from florence2.v1 import EngineInfo, ServerInfo
from florence2_server.stub.health import StateServer, describe, server_info, state_of
from florence2_server.supervision.supervisor import EngineState

pytestmark = pytest.mark.usefixtures("temporary_folder")


SERVED = EngineInfo(checkpoint="owner/a", revision="abc", layout="native", device="cpu", dtype="float32", slots=4)


@dataclass
class FakeSupervisor:
    state: EngineState = EngineState.RUNNING
    info: EngineInfo = field(default_factory=lambda: SERVED)


@pytest.fixture
def serve():
    """`serve(engine, supervisor, model)`: serve an engine's state until the end of the test."""
    servers = []

    def start(engine: str, supervisor: FakeSupervisor, model: str = "florence2") -> StateServer:
        servers.append(StateServer(model, engine, supervisor))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def state(model: str = "florence2") -> str:
    return state_of(server_info(model))


@pytest.mark.parametrize(
    ("state_", "name"),
    [
        (EngineState.RUNNING, "running"),
        (EngineState.STARTING, "starting"),
        (EngineState.FAILED, "failed"),
        (EngineState.CLOSED, "failed"),
    ],
)
def test_every_state_has_its_name(serve, state_, name):
    serve("0", FakeSupervisor(state_))
    assert state() == name


def test_the_server_says_what_its_engines_serve(serve):
    serve("1", FakeSupervisor(EngineState.STARTING, EngineInfo()))
    serve("0", FakeSupervisor())
    info = server_info("florence2")
    first, second = info.engines
    assert info == ServerInfo(version="0.1.0", model="florence2", engines=[first, second])
    assert first == EngineInfo(
        name="0",
        state="running",
        checkpoint="owner/a",
        revision="abc",
        layout="native",
        device="cpu",
        dtype="float32",
        slots=4,
    )
    assert second == EngineInfo(name="1", state="starting")


@pytest.mark.parametrize(
    ("states", "name"),
    [
        (["running", "running"], "running"),
        (["running", "starting"], "running"),
        (["starting", "starting"], "starting"),
        (["running", "failed"], "failed"),
        (["starting", "failed"], "failed"),
        (["running", "unreachable"], "unreachable"),
        ([], "starting"),
    ],
)
def test_an_engine_that_rejects_its_share_of_the_requests_decides(states, name):
    assert state_of(ServerInfo(engines=[EngineInfo(state=each) for each in states])) == name


def test_each_model_has_its_own_state(serve):
    serve("0", FakeSupervisor(EngineState.FAILED), "captions")
    serve("0", FakeSupervisor(), "captions-large")
    assert (state("captions"), state("captions-large"), state("large")) == ("failed", "running", "starting")


def test_a_socket_without_a_server_is_unreachable(serve, temporary_folder):
    serve("0", FakeSupervisor())
    (folder,) = temporary_folder.iterdir()
    (folder / "florence2.1.state.sock").touch()
    assert state() == "unreachable"
    assert [engine.name for engine in server_info("florence2").engines] == ["0", "1"]


def test_a_stub_that_stops_in_order_is_never_unreachable(serve):
    server = serve("0", FakeSupervisor())
    stopping = threading.Thread(target=server.close)
    seen = set()
    stopping.start()
    while stopping.is_alive():
        seen.add(state())
    stopping.join()
    assert seen | {state()} <= {"running", "starting"}


def test_no_other_user_has_access(serve, temporary_folder):
    serve("0", FakeSupervisor())
    (folder,) = temporary_folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_last_one_to_close_removes_the_folder(serve, temporary_folder):
    first, second = serve("0", FakeSupervisor()), serve("0", FakeSupervisor(), "captions")
    first.close()
    assert state("captions") == "running"
    second.close()
    assert list(temporary_folder.iterdir()) == []


def test_what_an_engine_serves_in_words():
    expected = "florence2-triton 0.1.0 serves owner/a@abc (native layout) on cpu in float32 with 4 slots"
    assert describe(SERVED, "0.1.0") == expected
