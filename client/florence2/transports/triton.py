"""Transports to Triton: one model over gRPC, with KServe's inference protocol v2.

Nothing else of the package knows tritonclient. gRPC itself resends requests that never left this machine.
"""

# tritonclient comes without types.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from functools import cached_property, partial
from typing import Any

import tritonclient.grpc
import tritonclient.grpc.aio
from tenacity import sleep_using_event
from tritonclient.utils import InferenceServerException

from florence2 import v1
from florence2.errors import DeadlineExceededError, Florence2Error, RequestCancelledError, UnavailableError, located
from florence2.transports.attempts import Attempts
from florence2.transports.destination import Destination
from florence2.transports.protocol import Cancellation, Health, Reply, RequestContext, ServerInfo, StreamReply
from florence2.transports.tracing import current_trace_context
from florence2.transports.triton_errors import own_cancellation, own_errors, require_open
from florence2.transports.triton_health import health_arguments, read_health, read_info
from florence2.transports.triton_messages import infer_arguments, task_response
from florence2.transports.triton_streams import AsyncTritonStreams, TritonStreams


class TritonTransport:
    """A `Transport` to one or several Triton servers. Holds a gRPC channel to each; may be shared among threads."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._attempts = Attempts(destination.urls, destination.retry)
        channels = destination.channels()
        self._clients = [tritonclient.grpc.InferenceServerClient(**channel) for channel in channels]
        self._closing = threading.Event()
        self._streams = TritonStreams(destination, channels, self._closing)

    def infer(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """Send a request, with retries and failover. See `Transport.infer`."""
        attempt = partial(self._attempt, image=image, request=request, context=context)
        return self._attempts.run(context, self._sleep(context), attempt)

    def _attempt(self, endpoint: int, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        url = self._destination.urls[endpoint]
        with located(url, context.request_id), own_errors(self._closing, context.timeout):
            require_open(self._closing)
            arguments = self._destination.model_arguments(context.trace_context)
            arguments |= infer_arguments(image, request, context)
            if context.cancellation is None:
                result = self._clients[endpoint].infer(**arguments)
            else:
                result = _cancellable_result(self._clients[endpoint], arguments, context.cancellation)
            return Reply(task_response(result), url)

    def _sleep(self, context: RequestContext) -> Callable[[float], None]:
        """The function that waits between attempts."""
        if context.cancellation is not None:
            return context.cancellation.wait
        return sleep_using_event(self._closing)

    def stream(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> Generator[StreamReply, None, None]:
        """Send a request, with retries and failover until the first event. See `StreamingTransport.stream`."""

        def attempt(endpoint: int) -> tuple[StreamReply, Generator[StreamReply, None, None]]:
            replies = self._streams.replies(endpoint, image, request, context)
            return next(replies), replies

        first, others = self._attempts.run(context, self._sleep(context), attempt)
        with contextlib.closing(others):
            yield first
            yield from others

    def is_ready(self, timeout: float | None) -> bool:
        """Whether at least one server has loaded the model. See `Transport.is_ready`."""
        return any(self._is_ready(client, timeout) for client in self._clients)

    def _is_ready(self, client: Any, timeout: float | None) -> bool:
        try:
            with own_errors(self._closing):
                arguments = self._destination.model_arguments(current_trace_context())
                return bool(client.is_model_ready(**arguments, client_timeout=timeout))
        except (UnavailableError, DeadlineExceededError):
            return False

    def health(self, timeout: float) -> list[Health]:
        """The state of each server, in the order of the urls, with `timeout` seconds for each of three calls."""
        pairs = zip(self._destination.urls, self._clients, strict=True)
        return [self._health(url, client, timeout) for url, client in pairs]

    def _health(self, url: str, client: Any, timeout: float) -> Health:
        live = ready = False
        try:
            with own_errors(self._closing):
                arguments = self._destination.model_arguments(current_trace_context())
                live = client.is_server_live(headers=arguments["headers"], client_timeout=timeout)
                ready = client.is_model_ready(**arguments, client_timeout=timeout)
                result = client.infer(**health_arguments(self._destination), client_timeout=timeout)
                return read_health(result, url, live, ready)
        except Florence2Error as error:
            return Health(url, live, ready, "unreachable", str(error))

    def server_info(self, timeout: float) -> list[ServerInfo]:
        """What each server serves, in the order of the urls. See `ServerInfoTransport.server_info`."""
        pairs = zip(self._destination.urls, self._clients, strict=True)
        return [self._server_info(url, client, timeout) for url, client in pairs]

    def _server_info(self, url: str, client: Any, timeout: float) -> ServerInfo:
        with located(url, None), own_errors(self._closing, timeout):
            require_open(self._closing)
            return read_info(client.infer(**health_arguments(self._destination), client_timeout=timeout), url)

    def close(self) -> None:
        """Close the channels; requests in flight end with `RequestCancelledError`."""
        self._closing.set()
        self._streams.close()
        for client in self._clients:
            client.close()


class AsyncTritonTransport:
    """An `AsyncTransport` to one or several Triton servers. Can be made before its event loop runs."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._attempts = Attempts(destination.urls, destination.retry)
        self._channels = destination.channels()
        self._closing = asyncio.Event()
        self._streams = AsyncTritonStreams(destination, self._channels, self._closing)

    @cached_property
    def _clients(self) -> list[Any]:
        # Made by the first request: a channel belongs to the event loop that is running when it is made.
        return [tritonclient.grpc.aio.InferenceServerClient(**channel) for channel in self._channels]

    async def infer_async(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """Send a request, with retries and failover. See `Transport.infer`."""
        attempt = partial(self._attempt, image=image, request=request, context=context)
        return await self._attempts.run_async(context, self._sleep, attempt)

    async def _attempt(self, endpoint: int, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        url = self._destination.urls[endpoint]
        with located(url, context.request_id), own_errors(self._closing, context.timeout), own_cancellation():
            require_open(self._closing)
            arguments = self._destination.model_arguments(context.trace_context)
            result = await self._clients[endpoint].infer(**arguments, **infer_arguments(image, request, context))
            return Reply(task_response(result), url)

    async def stream_async(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> AsyncGenerator[StreamReply, None]:
        """Send a request, with retries and failover until the first event. See `StreamingTransport.stream`."""

        async def attempt(endpoint: int) -> tuple[StreamReply, AsyncGenerator[StreamReply, None]]:
            replies = self._streams.replies(endpoint, image, request, context)
            return await anext(replies), replies

        first, opened = await self._attempts.run_async(context, self._sleep, attempt)
        async with contextlib.aclosing(opened) as others:
            yield first
            async for reply in others:
                yield reply

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def is_ready_async(self, timeout: float | None) -> bool:  # each server has its own
        """Whether at least one server has loaded the model. See `Transport.is_ready`."""
        return any([await self._is_ready(client, timeout) for client in self._clients])

    async def _is_ready(self, client: Any, timeout: float | None) -> bool:
        try:
            with own_errors(self._closing), own_cancellation():
                arguments = self._destination.model_arguments(current_trace_context())
                return bool(await client.is_model_ready(**arguments, client_timeout=timeout))
        except (UnavailableError, DeadlineExceededError):
            return False

    async def health_async(self, timeout: float) -> list[Health]:
        """The state of each server, in the order of the urls, with `timeout` seconds for each of three calls."""
        pairs = zip(self._destination.urls, self._clients, strict=True)
        return list(await asyncio.gather(*(self._health(url, client, timeout) for url, client in pairs)))

    async def _health(self, url: str, client: Any, timeout: float) -> Health:
        live = ready = False
        try:
            with own_errors(self._closing), own_cancellation():
                arguments = self._destination.model_arguments(current_trace_context())
                live = await client.is_server_live(headers=arguments["headers"], client_timeout=timeout)
                ready = await client.is_model_ready(**arguments, client_timeout=timeout)
                result = await client.infer(**health_arguments(self._destination), client_timeout=timeout)
                return read_health(result, url, live, ready)
        except Florence2Error as error:
            return Health(url, live, ready, "unreachable", str(error))

    async def server_info_async(self, timeout: float) -> list[ServerInfo]:
        """What each server serves, in the order of the urls. See `ServerInfoTransport.server_info`."""
        pairs = zip(self._destination.urls, self._clients, strict=True)
        return list(await asyncio.gather(*(self._server_info(url, client, timeout) for url, client in pairs)))

    async def _server_info(self, url: str, client: Any, timeout: float) -> ServerInfo:
        with located(url, None), own_errors(self._closing, timeout), own_cancellation():
            require_open(self._closing)
            return read_info(await client.infer(**health_arguments(self._destination), client_timeout=timeout), url)

    async def close_async(self) -> None:
        """Close the channels; requests in flight end with `RequestCancelledError`."""
        self._closing.set()
        await self._streams.close()
        if "_clients" in vars(self):
            for client in self._clients:
                await client.close()


def _cancellable_result(client: Any, arguments: dict[str, Any], cancellation: Cancellation) -> Any:
    """The result of tritonclient's `infer`, by a call that another thread can cancel.

    Raises:
        RequestCancelledError: it was cancelled.
    """
    settled: Future[Any] = Future()

    def settle(result: Any, error: InferenceServerException | None) -> None:
        if error is None:
            settled.set_result(result)
        else:
            settled.set_exception(error)

    call = client.async_infer(callback=settle, **arguments)
    with cancellation.calling(call.cancel):
        try:
            return settled.result()
        except InferenceServerException as error:
            if cancellation.is_cancelled:
                raise RequestCancelledError("the caller cancelled the request") from error
            raise
