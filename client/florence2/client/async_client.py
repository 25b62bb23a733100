"""`AsyncClient`: the methods of `Client`, as coroutines."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeAlias, Unpack

from florence2 import v1
from florence2._arguments import check_seconds, check_timeout
from florence2.client import typed_plans, typed_requests
from florence2.client.answers import Answer
from florence2.client.async_map import map_in_tasks
from florence2.client.base_client import BaseClient
from florence2.client.docstrings import document_like
from florence2.client.event_reader import EventReader
from florence2.client.events import AsyncEventStream, Event
from florence2.client.mapping import ImageT, MapOutcome, MapRequests, MapTask, check_concurrency, check_images
from florence2.client.reading import Origin, read_answer
from florence2.client.sync_client import Client
from florence2.client.typed_plans import RegionDetector, RegionTask
from florence2.client.typed_requests import CaptionDetail, Phrases, Region, ResultT, TypedRequest
from florence2.errors import Florence2Error
from florence2.images import ImageSource, encode_image
from florence2.options import CallOptions, RunOptions, TaskOptions, set_options
from florence2.plan_results import GroundedCaption, RegionAnalysis
from florence2.results import Detections, Segmentation, Text, TextRegions
from florence2.transports.destination import Destination
from florence2.transports.protocol import (
    AsyncServerInfoTransport,
    AsyncStreamingTransport,
    AsyncTransport,
    Health,
    Reply,
    RequestContext,
    ServerInfo,
)
from florence2.transports.triton import AsyncTritonTransport

Infer: TypeAlias = Callable[[bytes, v1.TaskRequest, RequestContext], Awaitable[Reply]]
"""The method `infer_async` of a transport, or a function that also retries."""


@document_like(Client)
class AsyncClient(BaseClient[AsyncTransport]):
    """`Client` for asyncio: the same arguments, methods, results and errors.

        async with AsyncClient("localhost:8001") as client:
            async for outcome in client.map(paths, "caption"):
                print(outcome.image, outcome.error or outcome.result)

    Cancelling a task cancels its request, also on the server, and raises `asyncio.CancelledError` as usual. Files are
    read and images encoded in a thread, so that the event loop does not wait for them.

    It can be made anywhere, but must be used in one event loop. Use `map` for many images: `gather` would send all
    requests at once, each with its timeout running, although the server's queue is bounded.
    """

    _protocol = AsyncTransport

    def _connect(self, destination: Destination) -> AsyncTransport:
        return AsyncTritonTransport(destination)

    async def caption(
        self, image: ImageSource, detail: CaptionDetail = "brief", **options: Unpack[TaskOptions]
    ) -> Text:
        """Describe the image: one sentence, a few, or a paragraph. See `Client.caption`."""
        return await self._run_task(image, typed_requests.caption(detail), options)

    async def detect(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Detect objects, with category names. See `Client.detect`."""
        return await self._run_task(image, typed_requests.detect(), options)

    async def describe_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find and describe regions. See `Client.describe_regions`."""
        return await self._run_task(image, typed_requests.describe_regions(), options)

    async def propose_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Propose regions of interest, without labels. See `Client.propose_regions`."""
        return await self._run_task(image, typed_requests.propose_regions(), options)

    async def ground(self, image: ImageSource, caption: Phrases, **options: Unpack[TaskOptions]) -> Detections:
        """Find the phrases of a caption in the image. See `Client.ground`."""
        return await self._run_task(image, typed_requests.ground(caption), options)

    async def detect_open_vocabulary(
        self, image: ImageSource, query: Phrases, **options: Unpack[TaskOptions]
    ) -> Detections:
        """Detect objects by free descriptions. See `Client.detect_open_vocabulary`."""
        return await self._run_task(image, typed_requests.detect_open_vocabulary(query), options)

    async def segment(self, image: ImageSource, expression: str, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline what an expression refers to. See `Client.segment`."""
        return await self._run_task(image, typed_requests.segment(expression), options)

    async def segment_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline the object in a region. See `Client.segment_region`."""
        return await self._run_task(image, typed_requests.segment_region(region), options)

    async def classify_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Name the category of the object in a region. See `Client.classify_region`."""
        return await self._run_task(image, typed_requests.classify_region(region), options)

    async def describe_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Describe a region. See `Client.describe_region`."""
        return await self._run_task(image, typed_requests.describe_region(region), options)

    async def read_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in a region. See `Client.read_region`."""
        return await self._run_task(image, typed_requests.read_region(region), options)

    async def read_text(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in the image (OCR). See `Client.read_text`."""
        return await self._run_task(image, typed_requests.read_text(), options)

    async def read_text_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> TextRegions:
        """Read the text in the image, and outline each piece. See `Client.read_text_regions`."""
        return await self._run_task(image, typed_requests.read_text_regions(), options)

    async def generate(self, image: ImageSource, prompt: str, **options: Unpack[TaskOptions]) -> Text:
        """Answer a prompt, for fine-tuned checkpoints. See `Client.generate`."""
        return await self._run_task(image, typed_requests.generate(prompt), options)

    async def ground_caption(
        self, image: ImageSource, detail: CaptionDetail = "brief", **options: Unpack[TaskOptions]
    ) -> GroundedCaption:
        """Describe the image, then find the phrases of that description in it. See `Client.ground_caption`."""
        result = (await self._run_plan(image, typed_plans.ground_caption(detail), options)).result
        assert isinstance(result, GroundedCaption)
        return result

    async def analyze_regions(
        self,
        image: ImageSource,
        region_task: RegionTask = "description",
        *,
        detector: RegionDetector | None = None,
        caption: Phrases | None = None,
        query: Phrases | None = None,
        max_regions: int | None = None,
        **options: Unpack[TaskOptions],
    ) -> RegionAnalysis:
        """Detect objects, then run a task about the region of each. See `Client.analyze_regions`."""
        request = typed_plans.analyze_regions(region_task, detector, caption, query, max_regions)
        result = (await self._run_plan(image, request, options)).result
        assert isinstance(result, RegionAnalysis)
        return result

    async def run_tasks(
        self, image: ImageSource, requests: Sequence[v1.TaskRequest], **options: Unpack[TaskOptions]
    ) -> list[Answer | Florence2Error]:
        """Send several requests about one image at once. See `Client.run_tasks`."""
        answer = await self._run_plan(image, typed_plans.run_tasks(requests), options)
        return [step.outcome for step in answer.steps]

    async def run(self, image: ImageSource, request: v1.TaskRequest, **options: Unpack[RunOptions]) -> Answer:
        """Send any request, and return everything that the server reports about its answer. See `Client.run`."""
        # A copy, because the request belongs to the caller.
        return await self._send(image, self._copied(request, options, RunOptions.__optional_keys__), options)

    def stream(self, image: ImageSource, request: v1.TaskRequest, **options: Unpack[CallOptions]) -> AsyncEventStream:
        """Send any request, and receive events with `async for` while it is answered. See `Client.stream`."""
        if not isinstance(self._transport, AsyncStreamingTransport):
            raise self._lacks_method("stream_async")
        copy = self._copied(request, options, CallOptions.__optional_keys__)
        return AsyncEventStream(self._events(self._transport, image, copy, self._prepare(copy, options)))

    def map(
        self,
        images: Iterable[ImageT] | AsyncIterable[ImageT],
        task: MapTask[ImageT],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        **options: Unpack[TaskOptions],
    ) -> AsyncGenerator[MapOutcome[ImageT], None]:
        """As `Client.map`, with `async for`: everything runs in the event loop, and `images` may be asynchronous."""
        self._require_open()
        requests, limit = MapRequests(task, options), check_concurrency(concurrency)
        checked = images if isinstance(images, AsyncIterable) else check_images(images)
        return map_in_tasks(checked, requests, self._send_mapped, limit, ordered=ordered)

    async def is_ready(self, *, timeout: float | None = 5.0) -> bool:
        """Whether at least one server can be reached and has loaded the model. See `Client.is_ready`."""
        self._require_open()
        return await self._transport.is_ready_async(check_timeout(timeout))

    async def health(self, *, timeout: float = 1.0) -> list[Health]:
        """The state of each server, in the order of the urls. See `Client.health`."""
        self._require_open()
        return list(await self._transport.health_async(check_seconds("timeout", timeout)))

    async def server_info(self, *, timeout: float = 1.0) -> list[ServerInfo]:
        """What each server serves, in the order of the urls. See `Client.server_info`."""
        self._require_open()
        if not isinstance(self._transport, AsyncServerInfoTransport):
            raise self._lacks_method("server_info_async")
        return list(await self._transport.server_info_async(check_seconds("timeout", timeout)))

    async def close(self) -> None:
        """Close the transport; requests in flight end with `RequestCancelledError`. May be called again."""
        self._is_closed = True
        await self._transport.close_async()

    async def __aenter__(self) -> Self:
        self._require_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run_task(self, image: ImageSource, typed: TypedRequest[ResultT], options: TaskOptions) -> ResultT:
        set_options(typed.request, options)
        return self._whole_result(await self._send(image, typed.request, options), typed.result_type)

    async def _run_plan(self, image: ImageSource, request: v1.TaskRequest, options: TaskOptions) -> Answer:
        set_options(request, options)
        return await self._send(image, request, options)

    async def _send(self, image: ImageSource, request: v1.TaskRequest, options: RunOptions) -> Answer:
        context = self._prepare(request, options)
        filters = self._filters(request, options)
        encoded = await _encoded(image)
        return filters.apply(await self._answer(encoded, request, context, self._transport.infer_async))

    async def _answer(self, encoded: bytes, request: v1.TaskRequest, context: RequestContext, infer: Infer) -> Answer:
        # Answers are decoded here: the server need not do it, and responses stay small.
        request.raw = True
        # Not before: another task may close the client while the image is encoded.
        self._require_open()
        with self._sending(request, context) as traced:
            reply = await infer(encoded, request, traced)
        return read_answer(request, reply.response, Origin(context.request_id, reply.url, context.timeout))

    async def _send_mapped(
        self, encoded: bytes, request: v1.TaskRequest, options: RunOptions, on_refusal: Callable[[float], None]
    ) -> Answer:
        context = replace(self._prepare(request, options), on_refusal=on_refusal)
        filters = self._filters(request, options)
        return filters.apply(await self._answer(encoded, request, context, self._infer_mapped))

    async def _infer_mapped(self, encoded: bytes, request: v1.TaskRequest, context: RequestContext) -> Reply:
        if self._map_attempts is None:
            return await self._transport.infer_async(encoded, request, context)
        infer = self._transport.infer_async
        return await self._map_attempts.run_async(context, asyncio.sleep, lambda _: infer(encoded, request, context))

    async def _events(
        self, transport: AsyncStreamingTransport, image: ImageSource, request: v1.TaskRequest, context: RequestContext
    ) -> AsyncGenerator[Event, None]:
        encoded = await _encoded(image)
        self._require_open()
        reader = EventReader(request, context)
        with self._streaming(request, context) as traced:
            async with aclosing(transport.stream_async(encoded, request, traced)) as replies:
                async for reply in replies:
                    for event in reader.read(reply):
                        yield event
            reader.check_finished()


async def _encoded(image: ImageSource) -> bytes:
    # Bytes need neither the disk nor an encoder, and a hop to the thread pool costs more than returning them.
    return image if isinstance(image, bytes) else await asyncio.to_thread(encode_image, image)
