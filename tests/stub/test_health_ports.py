"""The ports for health of a tritonserver: who listens, where, and what becomes of it."""

import socket
import time
from contextlib import ExitStack, closing

import grpc
import pytest
from florence2.v1 import EngineInfo
from florence2_server.settings import ConfigError
from florence2_server.stub.health import StateServer
from florence2_server.stub.health_ports import HealthConfig, HealthPorts, PortError, served_models
from florence2_server.stub.sockets import FolderError, create_folder
from florence2_server.supervision.supervisor import EngineState
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.stub.health import WAIT_SECONDS, fetch

pytestmark = pytest.mark.usefixtures("temporary_folder")


SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
def closing_later():
    with ExitStack() as stack:
        yield lambda service: stack.enter_context(closing(service))


def ignore(_report) -> None:
    pass


def ports_of(models, config, show=ignore) -> HealthPorts:
    return HealthPorts(models, config, show)


class Supervised:
    def __init__(self) -> None:
        self.state, self.info = EngineState.RUNNING, EngineInfo(slots=4)


def free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def until(condition) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_both_services_follow_the_engines(closing_later):
    http, grpc_ = free_ports()
    supervised = Supervised()
    closing_later(StateServer("captions", "0", supervised))
    closing_later(ports_of(["captions"], HealthConfig(http, grpc_)))
    stub = HealthStub(closing_later(grpc.insecure_channel(f"127.0.0.1:{grpc_}")))

    def health() -> tuple[int, int]:
        return fetch(http, "/ready")[0], stub.Check(HealthCheckRequest(), timeout=WAIT_SECONDS).status

    until(lambda: health() == (200, SERVING))
    supervised.state = EngineState.STARTING
    until(lambda: health() == (503, NOT_SERVING))
    assert fetch(http, "/live")[0] == 200
    supervised.state = EngineState.RUNNING
    until(lambda: health() == (200, SERVING))


def test_one_of_several_stubs_listens_and_another_can_when_that_one_ends(closing_later):
    config = HealthConfig(*free_ports())
    first = ports_of(["captions"], config)
    closing_later(ports_of(["captions"], config))
    assert fetch(config.health_port, "/")[0] == 200
    first.close()
    with pytest.raises(OSError, match="refused"):
        fetch(config.health_port, "/")
    closing_later(ports_of(["captions"], config))
    assert fetch(config.health_port, "/")[0] == 200


def test_ports_that_are_off_are_not_listened_on(closing_later):
    http, grpc_ = free_ports()
    closing_later(ports_of(["captions"], HealthConfig(grpc_health_port=grpc_)))
    stub = HealthStub(closing_later(grpc.insecure_channel(f"127.0.0.1:{grpc_}")))
    assert stub.Check(HealthCheckRequest(service="live"), timeout=WAIT_SECONDS).status == SERVING
    with pytest.raises(OSError, match="refused"):
        fetch(http, "/")


def test_one_of_several_stubs_observes_the_models_even_if_both_ports_are_off(closing_later):
    closing_later(StateServer("captions", "0", Supervised()))
    first, second = [], []
    closing_later(ports_of(["captions"], HealthConfig(), first.append))
    closing_later(ports_of(["captions"], HealthConfig(), second.append))
    until(lambda: len(first) > 1 and first[-1].is_ready())
    assert second == []


def test_the_lock_is_not_taken_through_a_link_and_its_file_is_not_truncated(temporary_folder, closing_later):
    lock = create_folder() / "health.lock"
    other = temporary_folder / "other"
    other.write_text("kept")
    lock.symlink_to(other)
    with pytest.raises(FolderError, match=f"^{lock}: cannot be opened as a lock file: Too many levels of symbolic"):
        ports_of(["captions"], HealthConfig())
    lock.unlink()
    lock.write_text("kept")
    closing_later(ports_of(["captions"], HealthConfig()))
    assert (other.read_text(), lock.read_text()) == ("kept", "kept")


@pytest.mark.parametrize("setting", ["health_port", "grpc_health_port"])
def test_a_port_in_use_is_named_and_nothing_stays_behind(temporary_folder, setting):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"^{setting}: cannot listen on 127\.0\.0\.1 port {port}: .*") as raised:
            ports_of(["captions"], HealthConfig(**{setting: port}))
    assert "\n" not in str(raised.value)
    assert list(temporary_folder.iterdir()) == []


def test_an_address_of_another_machine_is_named():
    with pytest.raises(PortError, match=r"health_port: cannot listen on 192\.0\.2\.1 port"):
        ports_of(["captions"], HealthConfig(health_port=free_ports()[0], health_address="192.0.2.1"))


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "127.0.0.1"),
        ({"FLORENCE2_ADDRESS": "0.0.0.0"}, "0.0.0.0"),  # noqa: S104
        ({"FLORENCE2_ADDRESS": "0.0.0.0", "FLORENCE2_HEALTH_ADDRESS": "127.0.0.1"}, "127.0.0.1"),  # noqa: S104
        ({"FLORENCE2_ADDRESS": "[::]"}, "::"),
        ({"FLORENCE2_HEALTH_ADDRESS": ""}, "127.0.0.1"),
    ],
)
def test_the_address_follows_that_of_the_server(environment, address):
    assert HealthConfig.of_environment(environment).listening_address == address


@pytest.mark.parametrize("value", ["-1", "65536", "http"])
def test_a_port_is_a_number(value):
    with pytest.raises(ConfigError, match=f"grpc_health_port: got '?{value}'?, expected"):
        HealthConfig.of_environment({"FLORENCE2_GRPC_HEALTH_PORT": value})


def test_what_kubernetes_defines_for_a_service_of_that_name_is_no_port():
    environment = {"FLORENCE2_HEALTH_PORT": "tcp://10.0.0.1:8003", "FLORENCE2_GRPC_HEALTH_PORT": "8004"}
    assert HealthConfig.of_environment(environment) == HealthConfig(grpc_health_port=8004)


def test_the_served_models_are_those_with_a_model_for_health(tmp_path):
    for name in ("documents", "documents_health", "captions", "captions_stream", "captions_health", "brain_health"):
        (tmp_path / name).mkdir()
    assert served_models(tmp_path / "captions_health") == ["captions", "documents"]
