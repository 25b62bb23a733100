"""Florence-2 in this process: the engine behind a client, without Triton and without a network.

    import florence2
    from florence2_server.in_process import InProcess

    with florence2.Client(transport=InProcess("microsoft/Florence-2-base-ft")) as client:
        print(client.caption("street.jpg").text)

For notebooks, scripts and tests. The protection of a server is missing here: an image that crashes a native decoder
crashes this process, and nothing limits how many requests wait.
"""

import asyncio
import os
import queue
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from math import inf
from typing import Any, TypeVar

from florence2 import v1
from florence2.adapter_names import check_adapter_name
from florence2.errors import DeadlineExceededError, InvalidArgumentError, RequestCancelledError, error_of_status
from florence2.plans import DEFAULT_LIMITS, check_plan
from florence2.transports import Health, Reply, RequestContext, ServerInfo, StreamReply
from florence2.transports.server_info import server_info_of

from florence2_server import __version__
from florence2_server.config import EngineConfig
from florence2_server.engine.adapters.adapter_set import AdapterSource
from florence2_server.engine.build import build
from florence2_server.engine.generation import Generation
from florence2_server.errors import ConfigError
from florence2_server.plan_execution import PlanExecution, Report, prepare
from florence2_server.repository import DEMO_CHECKPOINT

_Value = TypeVar("_Value")

_ADDRESS = "in-process"
_MODEL = "florence2"


class InProcess:
    """A transport for `florence2.Client` and `florence2.AsyncClient` that runs the engine in this process.

    Requests of all threads share the engine's decode batch, in the order of arrival; priorities have no effect. The
    steps of a cascade or a task list run at the same time. Closing the client stops the engine; its memory is freed
    with the transport.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub, optionally with `@revision`; by default the demo
            checkpoint, which knows drawn scenes of colored shapes and short words.
        adapters: folders of LoRA adapters that peft has saved, by the names that requests call them.
        **settings: further fields of `florence2_server.config.EngineConfig`, e.g. `device="cuda:1"`.

    Attributes:
        engine: the running engine.

    Raises:
        TypeError: an unknown setting.
        ConfigError: a setting is out of range, or no adapter can have the given name.
        CheckpointError: the checkpoint cannot be loaded, or an adapter does not fit it.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike[str] = DEMO_CHECKPOINT,
        *,
        adapters: Mapping[str, str | os.PathLike[str]] | None = None,
        **settings: Any,
    ) -> None:
        _check_names(adapters or {})
        self.engine, self._preparation, self._served = build(EngineConfig(checkpoint=os.fspath(checkpoint), **settings))
        self.engine.start()
        try:
            self._load_adapters(adapters or {})
        except BaseException:
            self.engine.close()
            raise

    def submit(self, image: bytes, request: v1.TaskRequest) -> Generation:
        """Submit a request to the engine without waiting for it, for callers that need tokens rather than text.

        Args:
            image: an image file, or its base64 text.
            request: a request that `florence2.prompts.check_request` accepts.

        Returns:
            The generation. Its `future` resolves to a `Completion`: token ids, log-probabilities, finish reason.

        Raises:
            InvalidArgumentError: the request or the image is invalid.
        """
        generation = prepare(self._preparation, image, request)
        self.engine.submit(generation)
        return generation

    def _load_adapters(self, folders: Mapping[str, str | os.PathLike[str]]) -> None:
        sources = [AdapterSource(name, os.fspath(folder), "") for name, folder in folders.items()]
        for error in self._preparation.adapters.serve(sources).values():
            raise error
        self._served.adapters.extend(sorted(folders))

    def infer(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """Generate a response. See `florence2.transports.Transport.infer`."""
        (event,) = self._events(image, request, context, is_streamed=False)
        return _reply(event)

    async def infer_async(self, image: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        """Generate a response. See `florence2.transports.AsyncTransport.infer_async`."""
        async with aclosing(self._events_async(image, request, context, is_streamed=False)) as events:
            (event,) = [event async for event in events]
        return _reply(event)

    def stream(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> Generator[StreamReply, None, None]:
        """Yield events while a response is generated. See `florence2.transports.StreamingTransport.stream`."""
        with closing(self._events(image, request, context, is_streamed=True)) as events:
            for event in events:
                yield StreamReply(event, _ADDRESS)

    async def stream_async(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext
    ) -> AsyncGenerator[StreamReply, None]:
        """Yield events while a response is generated. See `florence2.transports.StreamingTransport.stream`."""
        async with aclosing(self._events_async(image, request, context, is_streamed=True)) as events:
            async for event in events:
                yield StreamReply(event, _ADDRESS)

    def is_ready(self, timeout: float | None) -> bool:  # noqa: ARG002 - the protocol's
        """Whether the engine runs. The constructor has waited for its start, so this does not wait."""
        return self.engine.is_open

    async def is_ready_async(self, timeout: float | None) -> bool:
        """Whether the engine runs. See `is_ready`."""
        return self.is_ready(timeout)

    def health(self, timeout: float) -> Sequence[Health]:
        """The engine's health, which needs no waiting."""
        (info,) = self.server_info(timeout)
        is_open = self.engine.is_open
        return [Health(_ADDRESS, server_is_live=True, model_is_ready=is_open, engine=info.engines[0].state, info=info)]

    async def health_async(self, timeout: float) -> Sequence[Health]:
        """The engine's health, which needs no waiting."""
        return self.health(timeout)

    def server_info(self, timeout: float) -> Sequence[ServerInfo]:  # noqa: ARG002 - the protocol's
        """What the engine serves, which needs no waiting."""
        engine = v1.EngineInfo(name="0", state="running" if self.engine.is_open else "failed")
        engine.MergeFrom(self._served)
        return [server_info_of(_ADDRESS, v1.ServerInfo(version=__version__, model=_MODEL, engines=[engine]))]

    async def server_info_async(self, timeout: float) -> Sequence[ServerInfo]:
        """What the engine serves. See `server_info`."""
        return self.server_info(timeout)

    def close(self) -> None:
        """Stop the engine; requests in flight end with `RequestCancelledError`. Idempotent."""
        self.engine.close()

    async def close_async(self) -> None:
        """Stop the engine. See `close`."""
        await asyncio.to_thread(self.close)

    def _events(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext, *, is_streamed: bool
    ) -> Generator[v1.StreamEvent, None, None]:
        """The events of a request. If they are not streamed, there is only the last one."""
        deadline = _Deadline(request, context)
        reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        execution = self._execution(image, request, reports.put, is_streamed=is_streamed)
        try:
            with context.calling_on_cancellation(partial(reports.put, None)):
                while not execution.is_done:
                    if execution.has_startable:
                        deadline.remaining()
                        yield from execution.start_next()
                    while not execution.is_done and not (execution.has_startable and reports.empty()):
                        yield from execution.accept(_wait(reports, deadline))
        finally:
            execution.cancel()

    async def _events_async(
        self, image: bytes, request: v1.TaskRequest, context: RequestContext, *, is_streamed: bool
    ) -> AsyncGenerator[v1.StreamEvent, None]:
        """As `_events`."""
        deadline = _Deadline(request, context)
        reports: asyncio.Queue[Report] = asyncio.Queue()
        put = partial(_put_from_thread, asyncio.get_running_loop(), reports)
        execution = self._execution(image, request, put, is_streamed=is_streamed)
        try:
            while not execution.is_done:
                if execution.has_startable:
                    for event in await deadline.limit(partial(asyncio.to_thread, execution.start_next)):
                        yield event
                while not execution.is_done and not (execution.has_startable and reports.empty()):
                    for event in execution.accept(await deadline.limit(reports.get)):
                        yield event
        finally:
            execution.cancel()

    def _execution(
        self, image: bytes, request: v1.TaskRequest, report: Callable[[Report], None], *, is_streamed: bool
    ) -> PlanExecution:
        check_plan(request, DEFAULT_LIMITS)
        return PlanExecution(self.engine, self._preparation, image, request, report, is_streamed=is_streamed)


def _check_names(adapters: Iterable[str]) -> None:
    """Check that requests can name the adapters."""
    try:
        for name in adapters:
            check_adapter_name(name, "adapters")
    except InvalidArgumentError as error:
        raise ConfigError(str(error)) from None


class _Deadline:
    """When a request's answer is due: the earlier one of the caller's two timeouts."""

    def __init__(self, request: v1.TaskRequest, context: RequestContext) -> None:
        limits: list[tuple[float, float]] = []
        if context.timeout is not None:
            limits.append((context.started + context.timeout, context.timeout))
        if request.timeout_seconds:
            limits.append((time.monotonic() + request.timeout_seconds, request.timeout_seconds))
        self._due, self._timeout = min(limits, default=(inf, inf))

    def remaining(self) -> float | None:
        """Seconds until the deadline; None for no limit.

        Raises:
            DeadlineExceededError: the deadline has passed.
        """
        if self._due == inf:
            return None
        remaining = self._due - time.monotonic()
        if remaining <= 0:
            raise self.error()
        return remaining

    async def limit(self, function: Callable[[], Coroutine[Any, Any, _Value]]) -> _Value:
        """Await what a function returns until the deadline."""
        try:
            async with asyncio.timeout(self.remaining()):
                return await function()
        except TimeoutError:
            raise self.error() from None

    def error(self) -> DeadlineExceededError:
        """The error of a request whose deadline has passed."""
        return DeadlineExceededError(f"no response after {self._timeout:g} s")


def _wait(reports: "queue.SimpleQueue[Report | None]", deadline: _Deadline) -> Report:
    try:
        report = reports.get(timeout=deadline.remaining())
    except queue.Empty:
        raise deadline.error() from None
    if report is None:
        raise RequestCancelledError("the caller cancelled the request")
    return report


def _put_from_thread(loop: asyncio.AbstractEventLoop, reports: "asyncio.Queue[Report]", report: Report) -> None:
    if not loop.is_closed():  # else the request was abandoned
        loop.call_soon_threadsafe(reports.put_nowait, report)


def _reply(event: v1.StreamEvent) -> Reply:
    if event.HasField("error"):
        raise error_of_status(event.error.status, event.error.message)
    return Reply(event.response, _ADDRESS)
