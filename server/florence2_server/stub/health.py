"""Carries the state of the engines, and what they serve, from one stub of a tritonserver to another.

The stub of a served model is the server, on a unix socket. The stub of its health model is the client: requests to that
model do not wait behind those to the served one.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Protocol

import grpc
from florence2.v1 import EngineInfo, ServerInfo

from florence2_server import __version__
from florence2_server.stub.sockets import STATE, served_sockets, socket_path
from florence2_server.supervision.supervisor import EngineState
from florence2_server.v1.state_pb2 import GetStateRequest, GetStateResponse
from florence2_server.v1.state_pb2_grpc import (
    StateServiceServicer,
    StateServiceStub,
    add_StateServiceServicer_to_server,
)

_TIMEOUT_SECONDS = 0.5  # half of a probe's time limit
RUNNING, STARTING, FAILED, UNREACHABLE = "running", "starting", "failed", "unreachable"
_STATES = {
    EngineState.RUNNING: RUNNING,
    EngineState.STARTING: STARTING,
    EngineState.FAILED: FAILED,
    EngineState.CLOSED: FAILED,
}


class SupervisedEngine(Protocol):
    """The engine that a stub supervises."""

    @property
    def state(self) -> EngineState:
        """The state of the engine, as far as it is known."""

    @property
    def info(self) -> EngineInfo:
        """What the engine serves; empty until it is ready for the first time."""


class StateServer(StateServiceServicer):
    """Serves the state of an engine on a socket in the folder of this tritonserver.

    Args:
        model: the name of the served model.
        engine: the name of the engine, unique within the model.
        supervised: the engine.
    """

    def __init__(self, model: str, engine: str, supervised: SupervisedEngine) -> None:
        self._engine = engine
        self._supervised = supervised
        self._path = socket_path(model, engine, STATE)
        self._server = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="state"))
        add_StateServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._path}")
        self._server.start()

    def GetState(self, request: GetStateRequest, context: grpc.ServicerContext) -> GetStateResponse:  # noqa: ARG002, N802
        """Report the engine's state, and what it serves."""
        info = EngineInfo(name=self._engine, state=_STATES[self._supervised.state])
        info.MergeFrom(self._supervised.info)
        return GetStateResponse(engine=info)

    def close(self) -> None:
        """Stop serving, and remove the socket; the last one removes the folder."""
        self._path.unlink(missing_ok=True)  # first: a socket without a server means that the stub was killed
        self._server.stop(None).wait()
        with suppress(OSError):  # it holds sockets of other stubs
            self._path.parent.rmdir()


def server_info(model: str, timeout: float = _TIMEOUT_SECONDS) -> ServerInfo:
    """The engines of a served model, in the tritonserver that started this process.

    Args:
        model: the name of the model.
        timeout: seconds after which a stub that does not respond counts as unreachable.
    """
    with ExitStack() as stack:
        calls = {}
        for engine, socket in served_sockets(model, STATE).items():
            channel = stack.enter_context(grpc.insecure_channel(f"unix:{socket}"))
            calls[engine] = StateServiceStub(channel).GetState.future(GetStateRequest(), timeout=timeout)
        answers = [_answer(engine, call) for engine, call in calls.items()]
        remaining = served_sockets(model, STATE)  # without those of stubs that have stopped in order meanwhile
        engines = [answer for answer in answers if answer.state != UNREACHABLE or answer.name in remaining]
    return ServerInfo(version=__version__, model=model, engines=engines)


def state_of(info: ServerInfo) -> str:
    """The state of a served model.

    Each engine is handed its share of the requests, whatever its state. So one that rejects them decides. One that is
    being restarted does not: its requests wait for it, and others are answered meanwhile.
    """
    states = {engine.state for engine in info.engines}
    return next((state for state in (UNREACHABLE, FAILED, RUNNING) if state in states), STARTING)


def describe(info: EngineInfo, version: str) -> str:
    """What an engine serves, in words."""
    checkpoint = f"{info.checkpoint}@{info.revision}" if info.revision else info.checkpoint
    return (
        f"florence2-triton {version} serves {checkpoint} ({info.layout} layout) on {info.device} in {info.dtype} with "
        f"{info.slots} slots"
    )


def _answer(engine: str, call: "grpc.Future[GetStateResponse]") -> EngineInfo:
    try:
        return call.result().engine
    except grpc.RpcError:
        return EngineInfo(name=engine, state=UNREACHABLE)
