"""Health in gRPC's health protocol."""

from contextlib import ExitStack, closing

import grpc
import pytest
from florence2_server.stub.health_grpc import HealthGrpcServer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.stub.health import HALF, READY, STARTING, WAIT_SECONDS

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture
def closing_later():
    with ExitStack() as stack:
        yield lambda service: stack.enter_context(closing(service))


@pytest.fixture
def over_grpc(closing_later):
    """`over_grpc(report)`: a server of a report."""
    return lambda shown, address="127.0.0.1": closing_later(HealthGrpcServer(address, 0, shown))


@pytest.fixture
def stub_of(closing_later):
    return lambda server, host="127.0.0.1": HealthStub(closing_later(grpc.insecure_channel(f"{host}:{server.port}")))


def statuses(stub) -> dict[str, int]:
    services = ("", "captions", "documents", "live", "live/captions", "live/documents")
    return {name: stub.Check(HealthCheckRequest(service=name), timeout=WAIT_SECONDS).status for name in services}


@pytest.mark.parametrize(
    ("shown", "serving"),
    [
        (READY, {"", "captions", "documents", "live", "live/captions", "live/documents"}),
        (HALF, {"captions", "live/captions"}),
        (STARTING, {"captions", "live", "live/captions", "live/documents"}),
    ],
)
def test_the_statuses_over_grpc(over_grpc, stub_of, shown, serving):
    found = statuses(stub_of(over_grpc(shown)))
    assert {name for name, status in found.items() if status == SERVING} == serving
    assert set(found.values()) <= {SERVING, NOT_SERVING}


def test_an_unknown_service_is_not_found(over_grpc, stub_of):
    with pytest.raises(grpc.RpcError) as raised:
        stub_of(over_grpc(READY)).Check(HealthCheckRequest(service="nobody"), timeout=WAIT_SECONDS)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watcher_sees_each_change_once(over_grpc, stub_of):
    server = over_grpc(STARTING)
    watch = stub_of(server).Watch(HealthCheckRequest(service="documents"), timeout=WAIT_SECONDS)
    assert next(watch).status == NOT_SERVING
    for shown in (STARTING, READY, READY, HALF):
        server.publish(shown)
    assert [next(watch).status for _ in range(2)] == [SERVING, NOT_SERVING]


def test_many_watchers_do_not_keep_a_probe_out(over_grpc, stub_of):
    stub = stub_of(over_grpc(READY))
    watches = [stub.Watch(HealthCheckRequest()) for _ in range(50)]
    assert [next(watch).status for watch in watches] == [SERVING] * 50
    assert statuses(stub)[""] == SERVING


@pytest.mark.parametrize("address", ["::1", "::"])
def test_ipv6_over_grpc(over_grpc, stub_of, address):
    assert statuses(stub_of(over_grpc(READY, address), "[::1]"))[""] == SERVING
