"""What a transport is, and the values that a client exchanges with it.

The two protocols name their methods differently, so that one class can be both: `Client` calls `infer`, `AsyncClient`
awaits `infer_async`.
"""

import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

from florence2 import v1
from florence2.errors import DeadlineExceededError, RequestCancelledError

EngineState = Literal["running", "starting", "failed", "unreachable"]


class Cancellation:
    """Cancels blocking requests from another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._lock = threading.Lock()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Call all callbacks, and end the waits of `wait`. Idempotent."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def wait(self, seconds: float) -> None:
        """Sleep, but only until `cancel` is called."""
        self._event.wait(seconds)

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Call a function, in another thread, if `cancel` is called within the `with` block or was called before."""
        key = object()
        with self._lock:
            if not (is_late := self.is_cancelled):
                self._callbacks[key] = callback
        if is_late:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)


@dataclass(frozen=True)
class RequestContext:
    """What a transport needs to know about a request besides its content. None of it changes the answer."""

    request_id: str = ""
    """Identifies the request in logs and errors."""
    priority: int = 0
    """1 (served first) to 3 (served last); 0 for the server's default level."""
    timeout: float | None = None
    """Seconds from `started` until the response is due; None for no limit."""
    started: float = field(default_factory=time.monotonic)
    """When the caller made the request, on `time.monotonic`'s clock."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    """Headers that continue the caller's trace, e.g. `{"traceparent": "00-..."}`; empty if it is not traced."""
    cancellation: Cancellation | None = field(default=None, repr=False, compare=False)
    """Cancels the request of a blocking transport, which then raises `RequestCancelledError`; None if it is never
    cancelled. A transport that cannot cancel requests may ignore it."""
    on_refusal: Callable[[float], None] | None = field(default=None, repr=False, compare=False)
    """Called each time that all servers have refused the request, before it waits for the next attempt, so that the
    caller can reduce its load. The argument is when the last attempt began, on `time.monotonic`'s clock."""

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context header; None if the request is not traced."""
        return self.trace_context.get("traceparent")

    def remaining(self) -> float | None:
        """Seconds until the deadline; None for no limit.

        Raises:
            DeadlineExceededError: the deadline has passed.
        """
        if self.timeout is None:
            return None
        remaining = self.started + self.timeout - time.monotonic()
        if remaining <= 0:
            raise DeadlineExceededError(f"{self.timeout:g} s passed before the request was sent")
        return remaining

    def calling_on_cancellation(self, callback: Callable[[], object]) -> AbstractContextManager[None]:
        """In the `with` block, call a function in another thread if the caller cancels the request."""
        return nullcontext() if self.cancellation is None else self.cancellation.calling(callback)

    def require_wanted(self) -> None:
        """Raise a RequestCancelledError if the caller has cancelled the request."""
        if self.cancellation is not None and self.cancellation.is_cancelled:
            raise RequestCancelledError("the caller cancelled the request")


class Reply(NamedTuple):
    """A response and its origin."""

    response: v1.TaskResponse
    """At least `text`, `image_size` and `finish_reason`. The client decodes `text`; it ignores `result`."""
    url: str = ""
    """The server that responded, for answers and errors; empty if there is none."""


class StreamReply(NamedTuple):
    """An event of a stream and its origin."""

    event: v1.StreamEvent
    url: str = ""
    """As in `Reply`."""


@dataclass(frozen=True)
class EngineInfo:
    """An engine of a server: one checkpoint on one device.

    Except for its name and state, nothing is known until it has loaded its checkpoint for the first time: texts are
    empty, there are no adapters, and `slots` is 0.
    """

    name: str
    """Distinguishes the engines of a model: the number of its GPU, or of its instance on a CPU."""
    state: EngineState
    """`running`; `starting`: it is being (re)started, and requests wait for it; `failed`: it cannot start or crashes
    repeatedly, and its requests are rejected; `unreachable`: the process that supervises it does not respond."""
    checkpoint: str = ""
    """The checkpoint as configured, without a revision: a folder on the server, or an id on the Hugging Face hub."""
    revision: str = ""
    """The commit of the checkpoint on the hub; empty if it is not known."""
    layout: str = ""
    """The layout of the checkpoint: `native` (transformers) or `original` (Microsoft's code)."""
    device: str = ""
    """The device, such as `cpu` or `cuda:0`."""
    dtype: str = ""
    """The type of weights and activations: `float32`, `bfloat16` or `float16`."""
    slots: int = 0
    """The number of generations that it decodes at once."""
    adapters: tuple[str, ...] = ()
    """The names of the adapters that requests can choose, sorted."""


@dataclass(frozen=True)
class ServerInfo:
    """What a server serves under the name of a model."""

    url: str
    """The server's address."""
    version: str
    """The version of the server's package, such as `0.1.0`."""
    model: str
    """The model's name."""
    engines: tuple[EngineInfo, ...] = ()
    """Its engines, by name; none before the first has begun to start."""


@dataclass(frozen=True)
class Health:
    """The state of one server.

    Triton's own health endpoints keep reporting success after the process behind a model has crashed; `engine` shows
    that.
    """

    url: str
    """The server's address."""
    server_is_live: bool
    """Whether Triton responds."""
    model_is_ready: bool
    """Whether Triton reports the model as loaded."""
    engine: EngineState
    """`running`; `starting`: it is being (re)started, and requests wait for it; `failed`: it cannot start or crashes
    repeatedly, and requests are rejected; `unreachable`: its state could not be determined."""
    reason: str = ""
    """Why the state could not be determined."""
    info: ServerInfo | None = None
    """What is served; None if the server did not respond, or is older than this field."""

    @property
    def is_alive(self) -> bool:
        """False if only a restart of the container or process helps: the condition of a liveness probe."""
        return self.server_is_live and self.engine in ("running", "starting")

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered now: the condition of a readiness probe."""
        return self.server_is_live and self.model_is_ready and self.engine == "running"


def engine_state(name: str) -> EngineState:
    """The state that a server reports; states of newer servers, unknown here, count as `unreachable`."""
    return next((state for state in get_args(EngineState) if state == name), "unreachable")


@runtime_checkable
class Transport(Protocol):
    """Sends requests for a `Client`, blocking until the response arrives. Methods may be called from several threads.

    Clients check requests before they hand them to a transport, and decode the responses. Errors are those of
    `florence2.errors`; a client adds the request id to them. `UnavailableError` means that sending the request again is
    safe; if anything retries, it is the transport.

    A transport that can also stream has the method of `StreamingTransport`, and one that knows what is served that of
    `ServerInfoTransport`.
    """

    def infer(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """Send a request and return the response.

        Args:
            image: an image file, or its base64 text.
            request: a checked request with `raw` set. It must not be changed.
            context: request id, deadline, priority and trace.

        Raises:
            DeadlineExceededError: the deadline passed first.
            RequestCancelledError: the transport was closed meanwhile.
            Florence2Error: the request failed otherwise.
        """
        ...

    def is_ready(self, timeout: float | None) -> bool:
        """Whether at least one server can be reached and has loaded the model, with `timeout` seconds for each."""
        ...

    def health(self, timeout: float) -> Sequence[Health]:
        """The state of each server, `unreachable` after `timeout` seconds."""
        ...

    def close(self) -> None:
        """Release what the transport holds; requests in flight end with `RequestCancelledError`. Idempotent."""
        ...


@runtime_checkable
class StreamingTransport(Protocol):
    """A `Transport` that also streams, for `Client.stream`."""

    def stream(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> Generator[StreamReply, None, None]:
        """Send a request and yield what happens while it is answered.

        The last event is `response`, with at least what a `Reply` needs, or `error`. A transport may raise the error of
        `florence2.errors` instead of yielding the event. Closing the generator cancels the request. If anything is
        retried, then only before the first event.

        Args:
            image: an image file, or its base64 text.
            request: a checked request, which must not be changed. If it is `raw`, there are no items among the events.
            context: request id, deadline, priority and trace. The deadline is that of the last event.

        Raises:
            Florence2Error: as for `Transport.infer`.
        """
        ...


@runtime_checkable
class ServerInfoTransport(Protocol):
    """A `Transport` that knows what is served, for `Client.server_info`."""

    def server_info(self, timeout: float) -> Sequence[ServerInfo]:
        """What each server serves.

        Args:
            timeout: seconds for each server.

        Raises:
            DeadlineExceededError: a server did not respond in time.
            Florence2Error: the information is not available for another reason.
        """
        ...


@runtime_checkable
class AsyncTransport(Protocol):
    """Sends requests for an `AsyncClient`: the methods of `Transport`, as coroutines, used in one event loop.

    Cancelling `infer_async` cancels the request and raises `asyncio.CancelledError`. A transport that can also stream
    has the method of `AsyncStreamingTransport`, and one that knows what is served that of `AsyncServerInfoTransport`.
    """

    async def infer_async(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """Send a request and return the response. See `Transport.infer`."""
        ...

    async def is_ready_async(self, timeout: float | None) -> bool:
        """Whether at least one server can be reached and has loaded the model. See `Transport.is_ready`."""
        ...

    async def health_async(self, timeout: float) -> Sequence[Health]:
        """The state of each server. See `Transport.health`."""
        ...

    async def close_async(self) -> None:
        """Release what the transport holds. See `Transport.close`."""
        ...


@runtime_checkable
class AsyncStreamingTransport(Protocol):
    """An `AsyncTransport` that also streams, for `AsyncClient.stream`."""

    def stream_async(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> AsyncGenerator[StreamReply, None]:
        """Send a request and yield what happens while it is answered. See `StreamingTransport.stream`."""
        ...


@runtime_checkable
class AsyncServerInfoTransport(Protocol):
    """An `AsyncTransport` that knows what is served, for `AsyncClient.server_info`."""

    async def server_info_async(self, timeout: float) -> Sequence[ServerInfo]:
        """What each server serves. See `ServerInfoTransport.server_info`."""
        ...
