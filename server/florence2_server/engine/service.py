"""The engine's gRPC service, on a unix socket."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import NoReturn

import grpc
from florence2.errors import InvalidArgumentError

from florence2_server.engine.adapters.adapter_set import AdapterSource
from florence2_server.engine.engine import Engine
from florence2_server.engine.errors import EngineClosedError, ImageFileError
from florence2_server.engine.generation import Generation
from florence2_server.engine.memory import reserved_device_bytes, resident_bytes
from florence2_server.engine.preparation import Preparation
from florence2_server.v1.engine_pb2 import (
    GenerateRequest,
    GenerateResponse,
    GenerateStreamResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    SetAdaptersRequest,
    SetAdaptersResponse,
)
from florence2_server.v1.engine_pb2_grpc import EngineServiceServicer, add_EngineServiceServicer_to_server


class EngineService(EngineServiceServicer):
    """Prepares each request on its RPC's own thread, then waits for the engine.

    Args:
        engine: runs the generations.
        preparation: translates between messages and generations.
    """

    def __init__(self, engine: Engine, preparation: Preparation) -> None:
        self._engine = engine
        self._preparation = preparation

    def Generate(self, request: GenerateRequest, context: grpc.ServicerContext) -> GenerateResponse:  # noqa: N802
        """Run one generation."""
        generation = self._prepare(request, context)
        self._submit(generation, context)
        with _failures_aborting(context):
            completion = generation.future.result()
        return self._preparation.response(generation, completion)

    def GenerateStream(  # noqa: N802
        self, request: GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[GenerateStreamResponse]:
        """Run one generation, and send its tokens as they become certain."""
        generation = self._prepare(request, context)
        stream = self._preparation.stream(generation)
        self._submit(generation, context)
        with _failures_aborting(context):
            for tokens in stream:
                yield GenerateStreamResponse(tokens=tokens)
            completion = generation.future.result()
        yield GenerateStreamResponse(response=self._preparation.response(generation, completion))

    def Heartbeat(self, request: HeartbeatRequest, context: grpc.ServicerContext) -> HeartbeatResponse:  # noqa: ARG002, N802
        """Report the engine's progress, load and memory, and end the plans that are not under way any more."""
        self._preparation.adapters.keep(request.plans)
        statistics = self._engine.statistics
        return HeartbeatResponse(
            seconds_without_progress=self._engine.seconds_without_progress,
            waiting_requests=statistics.waiting,
            running_requests=statistics.running,
            decode_steps=statistics.decode_steps,
            decode_rows=statistics.decode_rows,
            image_embedding_cache_bytes=self._engine.embedding_statistics.bytes,
            host_memory_bytes=resident_bytes(),
            device_memory_bytes=reserved_device_bytes(),
            waiting_adapters=statistics.waiting_adapters,
            running_adapters=statistics.running_adapters,
        )

    def SetAdapters(self, request: SetAdaptersRequest, context: grpc.ServicerContext) -> SetAdaptersResponse:  # noqa: ARG002, N802
        """Serve these adapters and no others."""
        sources = [AdapterSource(source.name, source.folder, source.version) for source in request.adapters]
        adapters = self._preparation.adapters
        errors = adapters.serve(sources)
        loaded = {adapter.name: adapter for adapter in adapters.adapters}
        response = SetAdaptersResponse()
        for source in sources:
            status = response.adapters.add(name=source.name, error=str(errors.get(source.name, "")))
            if (adapter := loaded.get(source.name)) is not None:
                status.served, status.rank, status.bytes = True, adapter.rank, adapter.size_in_bytes
        return response

    def _prepare(self, request: GenerateRequest, context: grpc.ServicerContext) -> Generation:
        try:
            return self._preparation.prepare(request)
        except InvalidArgumentError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ImageFileError as error:  # not UNAVAILABLE or CANCELLED: the stub takes these for a crash
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))

    def _submit(self, generation: Generation, context: grpc.ServicerContext) -> None:
        if context.add_callback(lambda: _cancel(generation)):  # false if the RPC has already been cancelled
            self._engine.submit(generation)
        else:
            generation.future.cancel()


@contextlib.contextmanager
def _failures_aborting(context: grpc.ServicerContext) -> Iterator[None]:
    """Abort the RPC with the status of a generation's failure."""
    try:
        yield
    except CancelledError:
        _abort(context, grpc.StatusCode.CANCELLED, "the request was cancelled")
    except EngineClosedError as error:
        _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
    except Exception as error:  # noqa: BLE001 - the engine has logged the traceback; the caller gets one line
        _abort(context, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _cancel(generation: Generation) -> None:
    generation.future.cancel()


def _abort(context: grpc.ServicerContext, status: grpc.StatusCode, message: str) -> NoReturn:
    context.abort(status, message)
    raise AssertionError("abort() raises")  # for the type checker: grpc has no type hints


def serve(service: EngineService, socket: str, max_concurrent_rpcs: int) -> grpc.Server:
    """Start a server.

    Args:
        service: the service.
        socket: path of the unix socket; the permissions of its folder decide who may connect.
        max_concurrent_rpcs: the maximum number of RPCs that are handled at once; more of them wait.
    """
    # The default limit of 4 MiB is smaller than a photograph. The image decoder has a limit of its own.
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(max_concurrent_rpcs, thread_name_prefix="rpc"), options=unlimited)
    add_EngineServiceServicer_to_server(service, server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server
