"""Asks a server for its health, over HTTP and in gRPC's health protocol."""

import contextlib
import urllib.error
import urllib.request

import grpc
import psutil
from florence2_server.tritonserver import TritonServer
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.server.conftest import children_of
from tests.server.observation import ENGINE_ARGUMENT

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PROBE_SECONDS = 5


class Probes:
    """Probes of a server's ports for health."""

    def __init__(self, server: TritonServer) -> None:
        host, ports = server.hosts.health.in_urls, server.ports
        self.http_url = f"http://{host}:{ports.health}"
        self.channel = grpc.insecure_channel(f"{host}:{ports.grpc_health}", [("grpc.enable_http_proxy", 0)])
        self.stub = HealthStub(self.channel)

    def get(self, path: str) -> int:
        """The status of a GET; 0 if there is no answer."""
        try:
            with DIRECT.open(self.http_url + path, timeout=PROBE_SECONDS) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    @property
    def is_up(self) -> bool:
        """Whether both ports answer."""
        return self.get("/") == 200 and self.check() >= 0

    def check(self, service: str = "") -> int:
        """The status over gRPC; -1 if there is no answer."""
        try:
            return int(self.stub.Check(HealthCheckRequest(service=service), timeout=PROBE_SECONDS).status)
        except grpc.RpcError:
            return -1


@contextlib.contextmanager
def probing(server: TritonServer):
    probes = Probes(server)
    with probes.channel:
        yield probes


def engines_of_model(server: TritonServer, model: str) -> list[int]:
    """The process ids of a model's engines. The model's folder is on the command lines of their stubs."""
    processes = [psutil.Process(child) for child in children_of(server.process_id)]
    running = [process for process in processes if process.status() != psutil.STATUS_ZOMBIE]
    engines = [process for process in running if ENGINE_ARGUMENT.decode() in process.cmdline()]
    return [engine.pid for engine in engines if f"/{model}/" in " ".join(engine.parent().cmdline())]
