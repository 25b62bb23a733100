"""One stub asks another how its engine is; both are this process here, with the same parent as those of a server."""

import stat
import tempfile

import pytest
from florence2_adapter.health import HealthServer, worst_state
from florence2_adapter.supervisor import EngineState


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def instance():
    """Starts the health server of an instance whose engine is in a state; `states[name]` changes it."""
    servers = []
    states = {}

    def start(name: str, state: EngineState) -> HealthServer:
        states[name] = state
        servers.append(HealthServer(name, lambda: states[name]))
        return servers[-1]

    start.states = states
    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (EngineState.RUNNING, "running"),
        (EngineState.STARTING, "starting"),
        (EngineState.FAILED, "failed"),
        (EngineState.CLOSED, "failed"),
    ],
)
def test_every_state_has_its_word(instance, state, word):
    instance("florence2_0", state)
    assert worst_state() == word


def test_the_engine_that_is_worst_off_decides(instance):
    instance("florence2_0", EngineState.RUNNING)
    instance("florence2_1", EngineState.STARTING)
    assert worst_state() == "starting"
    instance.states["florence2_0"] = EngineState.FAILED
    assert worst_state() == "failed"


def test_nobody_there_is_unreachable(instance):
    assert worst_state() == "unreachable"
    instance("florence2_0", EngineState.RUNNING).close()
    assert worst_state() == "unreachable"


def test_a_socket_that_nobody_answers_is_unreachable(instance, temporary_folder):
    instance("florence2_0", EngineState.RUNNING)
    (folder,) = temporary_folder.iterdir()
    (folder / "florence2_1.sock").touch()
    assert worst_state() == "unreachable"


def test_nobody_else_may_ask(instance, temporary_folder):
    instance("florence2_0", EngineState.RUNNING)
    (folder,) = temporary_folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_left(instance, temporary_folder):
    instance("florence2_0", EngineState.RUNNING).close()
    assert list(temporary_folder.iterdir()) == []
