"""Streams of Triton's decoupled models: one request, and then events until the last.

tritonclient's own streams report responses to a callback, and a client object has only one stream at a time. So the
calls are made here, on channels with the same settings; gRPC shares connections among channels with equal settings.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator
from functools import cached_property
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2_grpc

from florence2 import v1
from florence2.errors import ServerError, located
from florence2.transports.destination import Destination
from florence2.transports.protocol import RequestContext, StreamReply
from florence2.transports.triton_errors import own_cancellation, own_errors, require_open
from florence2.transports.triton_messages import stream_event, stream_request

# With this header, Triton ends a failed stream with the error's status instead of sending only the error's text.
_STATUS_OF_ERRORS = ("triton_grpc_error", "true")


class TritonStreams:
    """Streams from one or several Triton servers, blocking.

    Args:
        destination: the servers and the model.
        channels: the settings of a channel to each server.
        closing: set when the transport is closed.
    """

    def __init__(self, destination: Destination, channels: list[dict[str, Any]], closing: threading.Event) -> None:
        self._destination = destination
        self._channels = [_channel(grpc, **channel) for channel in channels]
        self._closing = closing

    def replies(
        self, endpoint: int, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> Generator[StreamReply, None, None]:
        """Send a request to a server, and yield the events. Closing the generator cancels the request."""
        url = self._destination.urls[endpoint]
        with located(url, context.request_id), own_errors(self._closing, context.timeout):
            require_open(self._closing)
            call = _call(self._channels[endpoint], self._destination, image, request, context)
            try:
                for response in call:
                    event = stream_event(response, context.timeout)
                    if event.HasField("response"):
                        _drain(call)
                    yield StreamReply(event, url)
                    if event.HasField("response"):
                        return
            finally:
                call.cancel()
            raise ServerError("the stream ended without a response")

    def close(self) -> None:
        """Close the channels; streams end with `RequestCancelledError`."""
        for channel in self._channels:
            channel.close()


class AsyncTritonStreams:
    """Streams from one or several Triton servers, in one event loop. See `TritonStreams`."""

    def __init__(self, destination: Destination, channels: list[dict[str, Any]], closing: asyncio.Event) -> None:
        self._destination = destination
        self._settings = channels
        self._closing = closing

    @cached_property
    def _channels(self) -> list[Any]:
        # Made by the first stream: a channel belongs to the event loop that is running when it is made.
        return [_channel(grpc.aio, **channel) for channel in self._settings]

    async def replies(
        self, endpoint: int, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> AsyncGenerator[StreamReply, None]:
        """Send a request to a server, and yield the events. Closing the generator cancels the request."""
        url = self._destination.urls[endpoint]
        with located(url, context.request_id), own_errors(self._closing, context.timeout), own_cancellation():
            require_open(self._closing)
            call = _call(self._channels[endpoint], self._destination, image, request, context)
            try:
                async for response in call:
                    event = stream_event(response, context.timeout)
                    if event.HasField("response"):
                        await _drain_async(call)
                    yield StreamReply(event, url)
                    if event.HasField("response"):
                        return
            finally:
                call.cancel()
            raise ServerError("the stream ended without a response")

    async def close(self) -> None:
        """Close the channels; streams end with `RequestCancelledError`."""
        if "_channels" in vars(self):
            for channel in self._channels:
                await channel.close()


def _channel(module: Any, url: str, creds: Any, channel_args: list[tuple[str, Any]]) -> Any:
    """A channel of `grpc` or `grpc.aio` with the settings that tritonclient's constructor takes."""
    if creds is None:
        return module.insecure_channel(url, options=channel_args)
    return module.secure_channel(url, creds, options=channel_args)


def _call(
    channel: Any, destination: Destination, image: bytes, request: v1.TaskRequest, context: RequestContext
) -> Any:
    """Start a call, whose responses are iterated."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    metadata = (*destination.metadata(context.trace_context).items(), _STATUS_OF_ERRORS)
    remaining = context.remaining()
    message = stream_request(destination.stream_model, image, request, context, remaining)
    return stub.ModelStreamInfer(iter([message]), metadata=metadata, timeout=remaining)


def _drain(call: Any) -> None:
    """Let a call end by itself, so that Triton need not handle a cancellation while it cleans up.

    However the call ends, the answer is complete.
    """
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass


async def _drain_async(call: Any) -> None:
    with contextlib.suppress(grpc.RpcError):
        async for _ in call:
            pass
