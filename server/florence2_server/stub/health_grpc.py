"""Health in gRPC's own protocol, `grpc.health.v1`, which Kubernetes, service meshes and load balancers know."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from florence2_server.stub.health_report import Report

_OPTIONS = (
    # Otherwise two servers can share a port, and each gets some of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 4096),
    # Finds watchers that are gone without a word.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class HealthGrpcServer:
    """Answers `Check` and `Watch`.

    The service `""` is whether all models are ready, `NAME` whether that model is; `live` is whether all models are
    alive, `live/NAME` whether that one is.

    Args:
        address: the address to listen on; both IPv4 and IPv6 for `::`.
        port: the port to listen on; 0: any.
        report: the first report.

    Attributes:
        port: the port that it listens on.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(self, address: str, port: int, report: Report) -> None:
        self._servicer = HealthServicer()
        self._is_serving: dict[str, bool] = {}
        self.publish(report)
        self._server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="health-grpc"), options=_OPTIONS)
        add_HealthServicer_to_server(self._servicer, self._server)
        host = f"[{address}]" if ":" in address else address
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(str(error)) from None
        self._server.start()

    def publish(self, report: Report) -> None:
        """Set the statuses of all services, and tell those that have changed to the watchers."""
        for service, is_serving in _services(report):
            if self._is_serving.get(service) is not is_serving:
                self._is_serving[service] = is_serving
                status = HealthCheckResponse.SERVING if is_serving else HealthCheckResponse.NOT_SERVING
                self._servicer.set(service, status)

    def close(self) -> None:
        """Stop listening, and end all calls."""
        self._server.stop(None).wait()


def _services(report: Report) -> Iterator[tuple[str, bool]]:
    """Each service, and whether it is serving."""
    for model in report.names:
        yield model, report.is_ready(model)
        yield f"live/{model}", report.about(model).is_alive
    yield "live", report.is_alive
    yield "", report.is_ready()
