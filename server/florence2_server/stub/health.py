"""How one stub of a tritonserver tells another how its engine is: gRPC's health protocol over a unix socket.

The stub of the model `florence2` answers; that of `florence2_health` asks, whom Triton's queue for the first one does
not keep waiting. They find each other by the tritonserver that started both.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer, HealthStub, add_HealthServicer_to_server

from florence2_adapter.supervisor import EngineState

# A probe has a second in all.
_ANSWER_SECONDS = 0.5
UNREACHABLE = "unreachable"
_START_TIME = 19  # among the fields of /proc/PID/stat behind the name, proc(5)
_STATUSES = {
    EngineState.RUNNING: HealthCheckResponse.SERVING,
    EngineState.STARTING: HealthCheckResponse.UNKNOWN,
    EngineState.FAILED: HealthCheckResponse.NOT_SERVING,
    EngineState.CLOSED: HealthCheckResponse.NOT_SERVING,
}
# From well to worst.
_STATES = {
    HealthCheckResponse.SERVING: "running",
    HealthCheckResponse.UNKNOWN: "starting",
    HealthCheckResponse.NOT_SERVING: "failed",
}


class HealthServer(HealthServicer):
    """Answers on a socket in the folder of this tritonserver.

    Args:
        instance: the name of the model instance, unique within the tritonserver.
        state: tells how its engine is.

    Attributes:
        folder: where the sockets of this tritonserver's instances are.
    """

    def __init__(self, instance: str, state: Callable[[], EngineState]) -> None:
        self._state = state
        self.folder = _folder_of(os.getppid())
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._socket = self.folder / f"{instance}.sock"
        self._server = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="health"))
        add_HealthServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._socket}")
        self._server.start()

    def Check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:  # noqa: ARG002, N802
        """The health protocol's question."""
        return HealthCheckResponse(status=_STATUSES[self._state()])

    def close(self) -> None:
        """Answer no more, and remove the folder."""
        self._server.stop(None).wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def worst_state() -> str:
    """How the engine is that is worst off, of all those of the tritonserver that started this process."""
    folder = _folder_of(os.getppid())
    if not folder.is_dir() or folder.stat().st_uid != os.getuid():
        return UNREACHABLE
    states = [_state_at(socket) for socket in sorted(folder.glob("*.sock"))]
    return max(states, key=[*_STATES.values(), UNREACHABLE].index, default=UNREACHABLE)


def _state_at(socket: Path) -> str:
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            # types-grpcio-health-checking does not know the stub's methods.
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=_ANSWER_SECONDS)  # type: ignore[attr-defined]
        except grpc.RpcError:
            return UNREACHABLE
    return _STATES[answer.status]


def _folder_of(tritonserver: int) -> Path:
    # With its start: process ids come again, above all in containers, and a folder may outlive a killed server.
    start = Path(f"/proc/{tritonserver}/stat").read_text().rsplit(")", 1)[1].split()[_START_TIME]
    return Path(tempfile.gettempdir()) / f"florence2-health-{os.getuid()}-{tritonserver}-{start}"
