"""Serves streamed requests to the stub of the model for streams, on a unix socket."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from florence2_server.stub.incoming import IncomingRequest
from florence2_server.stub.sockets import STREAM, socket_path
from florence2_server.v1.streaming_pb2 import StreamRequest, StreamResponse
from florence2_server.v1.streaming_pb2_grpc import StreamingServiceServicer, add_StreamingServiceServicer_to_server

MICROSECONDS = 1_000_000
# The dispatcher checks the sizes of images and requests.
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Dispatches(Protocol):
    """Takes requests; does not block."""

    def dispatch(self, requests: Iterable[IncomingRequest]) -> None:
        """Take requests; each is answered later, or refused at once."""


class StreamedRequest:
    """An `IncomingRequest` from the socket. Its events can be iterated over, on the event loop that created it.

    Args:
        message: what the other stub sent. It is not referenced, so that its memory can be freed.

    Attributes:
        request_id, traceparent, queue_timeout: see `IncomingRequest`.
    """

    is_streamed = True

    def __init__(self, message: StreamRequest) -> None:
        self.request_id = message.request_id
        self.traceparent = message.traceparent
        self.queue_timeout = message.timeout_microseconds / MICROSECONDS or None
        self._inputs = {"IMAGE": message.image, "REQUEST": message.request}
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._is_cancelled = False

    def input(self, name: str) -> NDArray[np.object_]:
        """The element IMAGE or REQUEST, in the shape (1, 1). Each can be read once."""
        return np.array([[self._inputs.pop(name)]], dtype=np.object_)

    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the request."""
        return self._is_cancelled

    def cancel(self) -> None:
        """Note that the caller has cancelled the request."""
        self._is_cancelled = True

    def respond(self, elements: Sequence[bytes]) -> None:
        """Not for a streamed request.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a streamed request is answered with events")

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """Not for a streamed request.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a streamed request is answered with events")

    def emit(self, event: bytes) -> None:
        """Send an event, from any thread."""
        self._put(event)

    def end(self) -> None:
        """End the stream, from any thread."""
        self._put(None)

    async def events(self) -> AsyncIterator[bytes]:
        """The events, until the end."""
        while (event := await self._events.get()) is not None:
            yield event

    def _put(self, event: bytes | None) -> None:
        # After the server is closed, its loop is closed too, and nothing is left that could read the event.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class StreamingServer(StreamingServiceServicer):
    """Serves streamed requests on a socket in the folder of this tritonserver.

    All streams share one thread with an event loop, so that any number of them can wait.

    Args:
        model: the name of the served model.
        engine: the name of the engine.
        dispatcher: answers the requests.
    """

    def __init__(self, model: str, engine: str, dispatcher: Dispatches) -> None:
        self._dispatcher = dispatcher
        self._address = f"unix:{socket_path(model, engine, STREAM)}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streams", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()

    async def Stream(self, _: object, context: "grpc.aio.ServicerContext[Any, Any]") -> None:  # noqa: N802
        """Answer one request with events; see `streaming.proto`."""
        # An iterator over the requests would hold the message, and so the image, until the stream ends.
        message = await context.read()
        if not isinstance(message, StreamRequest):  # the other side closed the stream without a request
            return
        request = StreamedRequest(message)
        del message
        try:
            self._dispatcher.dispatch([request])
            async for event in request.events():
                await context.write(StreamResponse(event=event))
        finally:
            request.cancel()

    def close(self) -> None:
        """Cancel all streams; tritonserver has waited for them before it stops its models."""
        asyncio.run_coroutine_threadsafe(self._server.stop(None), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=UNLIMITED)
        add_StreamingServiceServicer_to_server(self, server)
        server.add_insecure_port(self._address)
        await server.start()
        return server
