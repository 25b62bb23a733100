"""Forwards requests from the stub of a model for streams to the stubs of the served model, and the events back."""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from florence2.v1 import StreamEvent, TaskError

from florence2_server.stub.admission import RefusedError
from florence2_server.stub.incoming import IncomingRequest
from florence2_server.stub.sockets import STREAM, served_sockets
from florence2_server.stub.streaming_service import MICROSECONDS, UNLIMITED
from florence2_server.stub.wire import Encoding, encoding_of, serialize
from florence2_server.v1.streaming_pb2 import StreamRequest
from florence2_server.v1.streaming_pb2_grpc import StreamingServiceStub

_logger = logging.getLogger(__name__)

# Each check whether a caller has cancelled is a round-trip to tritonserver.
_CANCELLATION_SWEEP_SECONDS = 0.1
# A stub that listens again is found after at most a second.
_CHANNEL_OPTIONS = (*UNLIMITED, ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))
# The other stub counts an image once it has it. Until then the image counts here.
_MAX_UNWRITTEN_BYTES = 256 * 1024 * 1024
# While a message is written, gRPC holds two more copies of it.
_WRITES_AT_ONCE = 4


class _UnwrittenImages:
    """Counts the bytes of images that have been read and not yet been written to a socket. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._sizes: dict[IncomingRequest, int] = {}
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check whether another image may be read. Its size is not known yet, so the last one may exceed the limit.

        Raises:
            RefusedError: it may not.
        """
        with self._lock:
            if self._bytes >= self._limit:
                message = f"got {self._bytes} bytes of images to forward, expected fewer than {self._limit}"
                raise RefusedError("bytes", f"queue_bytes: {message}; try again later")

    def add(self, incoming: IncomingRequest, size: int) -> None:
        """Count the image of a request, in bytes."""
        with self._lock:
            self._sizes[incoming] = size
            self._bytes += size

    def remove(self, incoming: IncomingRequest) -> None:
        """Stop counting the image of a request, if it is counted."""
        with self._lock:
            self._bytes -= self._sizes.pop(incoming, 0)


@dataclass(frozen=True)
class _EngineStub:
    """The stub of an engine. Each has its own limit of writes, so that one that hangs does not stop the others."""

    channel: grpc.aio.Channel
    writes: asyncio.Semaphore


class Forwarder:
    """Forwards requests to the stubs of the served model's engines in turn. Every stream is ended, whatever happens.

    All streams share one thread with an event loop.

    Args:
        model: the name of the served model.
        max_unwritten_bytes: a request is refused while images of this size together, in bytes, have been read and not
            yet been written to a socket.
        on_refusal: called for each request that is refused.
    """

    def __init__(
        self, model: str, max_unwritten_bytes: int = _MAX_UNWRITTEN_BYTES, on_refusal: Callable[[], None] = lambda: None
    ) -> None:
        self._model = model
        self._on_refusal = on_refusal
        self._unwritten = _UnwrittenImages(max_unwritten_bytes)
        self._turns = itertools.count()
        self._stubs: dict[Path, _EngineStub] = {}
        self._tasks: dict[IncomingRequest, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
        self._thread.start()
        self._sweeper = asyncio.run_coroutine_threadsafe(self._sweep(), self._loop)

    def forward(self, incoming: IncomingRequest) -> None:
        """Forward a streamed request. Its inputs are read before this returns; nothing else is waited for."""
        encoding = Encoding.BINARY
        try:
            requests = incoming.input("REQUEST")
            encoding = encoding_of(requests)
            self._unwritten.check()
            message = _message(incoming, requests.item())
        except RefusedError as error:
            self._on_refusal()
            _end_with(incoming, encoding, grpc.StatusCode.UNAVAILABLE, str(error))
            return
        except Exception as error:
            _logger.exception("the inputs of a stream cannot be read")
            _end_with(incoming, encoding, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            return
        self._unwritten.add(incoming, len(message.image))
        # In a list, from which it is taken: whoever holds the message holds the image.
        asyncio.run_coroutine_threadsafe(self._forward(incoming, [message], encoding), self._loop)

    def close(self) -> None:
        """End all streams."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _forward(self, incoming: IncomingRequest, messages: list[StreamRequest], encoding: Encoding) -> None:
        task = asyncio.current_task()
        assert task is not None, "this is a coroutine of a task"
        self._tasks[incoming] = task
        try:
            await self._relay(incoming, messages)
            incoming.end()
        except grpc.aio.AioRpcError as error:
            # UNKNOWN: an exception in that process. Everything else means that it is not running, or is stopping.
            is_bug = error.code() is grpc.StatusCode.UNKNOWN
            status = grpc.StatusCode.INTERNAL if is_bug else grpc.StatusCode.UNAVAILABLE
            _end_with(
                incoming,
                encoding,
                status,
                f"the process that runs the model {self._model} cannot be reached: {error.details()}",
            )
        except asyncio.CancelledError:
            incoming.end()
        except Exception as error:
            _logger.exception("a stream failed unexpectedly")
            _end_with(incoming, encoding, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
        finally:
            del self._tasks[incoming]

    async def _relay(self, incoming: IncomingRequest, messages: list[StreamRequest]) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._unwritten.remove, incoming)
            stub = self._engine_stub()
            call = StreamingServiceStub(stub.channel).Stream()
            stack.callback(call.cancel)
            # If the RPC has ended already, reading raises the reason.
            with contextlib.suppress(asyncio.InvalidStateError):
                async with stub.writes:
                    await call.write(messages.pop())
                await call.done_writing()
            self._unwritten.remove(incoming)
            async for response in call:
                incoming.emit(response.event)

    def _engine_stub(self) -> _EngineStub:
        """The stub of the engine whose turn it is."""
        sockets = list(served_sockets(self._model, STREAM).values())
        if not sockets:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "it serves no socket"
            )
        socket = sockets[next(self._turns) % len(sockets)]
        if socket not in self._stubs:
            channel = grpc.aio.insecure_channel(f"unix:{socket}", options=_CHANNEL_OPTIONS)
            self._stubs[socket] = _EngineStub(channel, asyncio.Semaphore(_WRITES_AT_ONCE))
        return self._stubs[socket]

    async def _sweep(self) -> None:
        """Cancel the streams whose callers have cancelled them, again and again."""
        while True:
            await asyncio.sleep(_CANCELLATION_SWEEP_SECONDS)
            try:
                cancelled = await asyncio.to_thread(_cancelled, list(self._tasks))
            except Exception:  # such as that no thread can be started
                _logger.exception("streams cannot be checked for cancellation")
                continue
            for incoming in cancelled:
                if task := self._tasks.get(incoming):
                    task.cancel()

    async def _close(self) -> None:
        self._sweeper.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stub in self._stubs.values():
            await stub.channel.close()


def _message(incoming: IncomingRequest, request: bytes) -> StreamRequest:
    return StreamRequest(
        image=incoming.input("IMAGE").item(),
        request=request,
        request_id=incoming.request_id,
        traceparent=incoming.traceparent,
        timeout_microseconds=int((incoming.queue_timeout or 0) * MICROSECONDS),
    )


def _cancelled(streams: list[IncomingRequest]) -> list[IncomingRequest]:
    """Those of the streams whose callers have cancelled them."""
    cancelled = []
    for incoming in streams:
        try:
            if incoming.is_cancelled():
                cancelled.append(incoming)
        except Exception:
            _logger.exception("a stream cannot be checked for cancellation")
    return cancelled


def _end_with(incoming: IncomingRequest, encoding: Encoding, status: grpc.StatusCode, message: str) -> None:
    """End a stream with an error. Never raises."""
    try:
        incoming.emit(serialize(StreamEvent(error=TaskError(status=status.name, message=message)), encoding))
    except Exception:
        _logger.exception("the error of a stream cannot be sent")
    incoming.end()
