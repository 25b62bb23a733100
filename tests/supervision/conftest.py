import pytest
from florence2_server.config import SupervisionConfig
from florence2_server.supervision.supervisor import EngineSupervisor

from tests.supervision.fleet import Fleet


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def supervise(fleet):
    """Starts a supervisor over the fleet."""
    started = []

    def supervise(**limits) -> EngineSupervisor:
        supervisor = EngineSupervisor(fleet.launch, SupervisionConfig(**limits), fleet)
        supervisor.start()
        started.append(supervisor)
        return supervisor

    yield supervise
    for supervisor in started:
        supervisor.close()
