"""Serves the adapters of an engine to an operator's command, on a unix socket. Callers cannot reach it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, Protocol

import grpc
from florence2.adapter_names import ADAPTER_NAME_RULE, is_adapter_name

from florence2_server.stub.adapter_sources import AdapterSources, SourceError
from florence2_server.stub.sockets import ADMIN, socket_path
from florence2_server.supervision.engine_adapters import EngineAdapters, WantedAdapter
from florence2_server.supervision.supervisor import EngineState
from florence2_server.v1.engine_pb2 import AdapterStatus
from florence2_server.v1.state_pb2 import (
    ListAdaptersRequest,
    ListAdaptersResponse,
    ListedAdapter,
    LoadAdapterRequest,
    LoadAdapterResponse,
    UnloadAdapterRequest,
    UnloadAdapterResponse,
)
from florence2_server.v1.state_pb2_grpc import AdapterServiceServicer, add_AdapterServiceServicer_to_server

_THREADS = 32  # a change that waits for another one takes a thread, and lists must not wait for these


class SupervisedEngine(Protocol):
    """The engine that a stub supervises."""

    @property
    def state(self) -> EngineState:
        """The state of the engine, as far as it is known."""


class AdapterServer(AdapterServiceServicer):
    """Lists, loads and unloads adapters. One change is made at a time; meanwhile, they can be listed.

    Args:
        model: the name of the served model.
        engine: the name of the engine, unique within the model.
        supervised: the engine.
        sources: the adapters that it is to serve.
        adapters: those that it serves.
    """

    def __init__(
        self, model: str, engine: str, supervised: SupervisedEngine, sources: AdapterSources, adapters: EngineAdapters
    ) -> None:
        self._supervised = supervised
        self._sources = sources
        self._adapters = adapters
        self._path = socket_path(model, engine, ADMIN)
        self._changing = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, thread_name_prefix="adapters"))
        add_AdapterServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self._path}")
        self._server.start()

    def ListAdapters(self, request: ListAdaptersRequest, context: grpc.ServicerContext) -> ListAdaptersResponse:  # noqa: ARG002, N802
        """List what is to be served."""
        wanted = sorted(self._sources.wanted(), key=lambda each: each.name)
        statuses = self._adapters.statuses
        return ListAdaptersResponse(adapters=[_listed(each, statuses.get(each)) for each in wanted])

    def LoadAdapter(self, request: LoadAdapterRequest, context: grpc.ServicerContext) -> LoadAdapterResponse:  # noqa: N802
        """Serve an adapter."""
        name = request.name
        if not is_adapter_name(name):
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"name: got {name!r}, expected {ADAPTER_NAME_RULE}")
        if self._supervised.state is not EngineState.RUNNING:
            _abort(context, grpc.StatusCode.UNAVAILABLE, f"the engine is not running ({self._supervised.state.value})")
        with self._changing:
            wanted, status = self._load(request, context)
        if status is None:
            reason = "the engine has not loaded the adapter; the log of the server says why"
            _abort(context, grpc.StatusCode.UNAVAILABLE, reason)
        if status.error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, status.error)
        return LoadAdapterResponse(adapter=_listed(wanted, status))

    def UnloadAdapter(self, request: UnloadAdapterRequest, context: grpc.ServicerContext) -> UnloadAdapterResponse:  # noqa: N802
        """Stop serving an adapter."""
        with self._changing:
            try:
                self._sources.unload(request.name)
            except KeyError:
                _abort(context, grpc.StatusCode.NOT_FOUND, f"there is no adapter {request.name!r}")
            except SourceError as error:
                _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
            self._adapters.update()
        return UnloadAdapterResponse()

    def close(self) -> None:
        """Stop serving, and remove the socket."""
        self._path.unlink(missing_ok=True)
        self._server.stop(None).wait()

    def _load(
        self, request: LoadAdapterRequest, context: grpc.ServicerContext
    ) -> tuple[WantedAdapter, AdapterStatus | None]:
        """Load an adapter. If it is not served then, everything is as it was before."""
        try:
            former = self._sources.load(request.name, request.source)
        except SourceError as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        self._adapters.update()
        wanted = next(each for each in self._sources.wanted() if each.name == request.name)
        status = self._adapters.statuses.get(wanted)
        if status is None or status.error:
            self._sources.restore(request.name, former)
            self._adapters.update()
        return wanted, status


def _listed(wanted: WantedAdapter, status: AdapterStatus | None) -> ListedAdapter:
    listed = ListedAdapter(name=wanted.name, source=wanted.source, origin=wanted.origin.value)
    if status is not None:
        listed.served, listed.error = status.served, status.error
        listed.rank, listed.bytes = status.rank, status.bytes
    return listed


def _abort(context: grpc.ServicerContext, status: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(status, message)
    raise AssertionError("abort() raises")  # for the type checker: grpc has no type hints
