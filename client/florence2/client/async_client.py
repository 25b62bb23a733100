"""`AsyncClient`: the methods of `Client`, awaited."""

import asyncio
from types import TracebackType
from typing import Self, Unpack

from florence2 import _questions, v1
from florence2._answers import Answer, read_answer
from florence2._arguments import check_seconds
from florence2._base_client import BaseClient
from florence2._calls import Call
from florence2._destination import Destination
from florence2._health import Health
from florence2._images import ImageSource, encode_image
from florence2._options import CallOptions, TaskOptions, check_timeout
from florence2._questions import Answered, CaptionDetail, Phrases, Question, Region
from florence2._transport import AsyncTransport
from florence2.results import Detections, Segmentation, Text, TextRegions


class AsyncClient(BaseClient):
    """`Client` for asyncio: the same arguments, methods, results and errors.

        async with AsyncClient("localhost:8001") as client:
            captions = await asyncio.gather(*(client.caption(path) for path in paths))

    Cancelling a task cancels its call, also on the server, and raises `asyncio.CancelledError` as ever. Files
    are read and images encoded in a thread, so that the event loop does not wait for them.

    It can be made anywhere, and is then used in one event loop. The server's queue is bounded: a `gather`
    over thousands of images is better held back by a semaphore than answered with `UnavailableError`.
    """

    def _connect(self, destination: Destination) -> None:
        self._transport = AsyncTransport(destination)

    async def caption(
        self, image: ImageSource, detail: CaptionDetail = "brief", **options: Unpack[TaskOptions]
    ) -> Text:
        """Describe the image: one sentence, a few, or a paragraph. See `Client.caption`."""
        return await self._ask(image, _questions.caption(detail), options)

    async def detect(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find objects, with category names. See `Client.detect`."""
        return await self._ask(image, _questions.detect(), options)

    async def describe_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find regions, with descriptions. See `Client.describe_regions`."""
        return await self._ask(image, _questions.describe_regions(), options)

    async def propose_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Detections:
        """Find regions worth looking at, without labels. See `Client.propose_regions`."""
        return await self._ask(image, _questions.propose_regions(), options)

    async def ground(self, image: ImageSource, caption: Phrases, **options: Unpack[TaskOptions]) -> Detections:
        """Find the phrases of a caption in the image. See `Client.ground`."""
        return await self._ask(image, _questions.ground(caption), options)

    async def detect_open_vocabulary(
        self, image: ImageSource, query: Phrases, **options: Unpack[TaskOptions]
    ) -> Detections:
        """Find what is named in free words. See `Client.detect_open_vocabulary`."""
        return await self._ask(image, _questions.detect_open_vocabulary(query), options)

    async def segment(self, image: ImageSource, expression: str, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline what an expression refers to. See `Client.segment`."""
        return await self._ask(image, _questions.segment(expression), options)

    async def segment_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Segmentation:
        """Outline the object in a region, a box in pixels. See `Client.segment_region`."""
        return await self._ask(image, _questions.segment_region(region), options)

    async def classify_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Name the category of the object in a region, a box in pixels. See `Client.classify_region`."""
        return await self._ask(image, _questions.classify_region(region), options)

    async def describe_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Describe a region, a box in pixels. See `Client.describe_region`."""
        return await self._ask(image, _questions.describe_region(region), options)

    async def read_region(self, image: ImageSource, region: Region, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in a region, a box in pixels. See `Client.read_region`."""
        return await self._ask(image, _questions.read_region(region), options)

    async def read_text(self, image: ImageSource, **options: Unpack[TaskOptions]) -> Text:
        """Read the text in the image (OCR). See `Client.read_text`."""
        return await self._ask(image, _questions.read_text(), options)

    async def read_text_regions(self, image: ImageSource, **options: Unpack[TaskOptions]) -> TextRegions:
        """Read the text in the image, and outline each piece. See `Client.read_text_regions`."""
        return await self._ask(image, _questions.read_text_regions(), options)

    async def generate(self, image: ImageSource, prompt: str, **options: Unpack[TaskOptions]) -> Text:
        """Answer a prompt of a fine-tuned checkpoint. See `Client.generate`."""
        return await self._ask(image, _questions.generate(prompt), options)

    async def run(self, image: ImageSource, request: v1.TaskRequest, **options: Unpack[CallOptions]) -> Answer:
        """Send any request, and return all that the server says about its answer. See `Client.run`."""
        return await self._answer(image, self._run_call(request, options))

    async def is_ready(self, *, timeout: float | None = 5.0) -> bool:
        """Whether a server can be reached and says that the model is loaded. See `Client.is_ready`."""
        self._require_open()
        return await self._transport.is_ready(check_timeout(timeout))

    async def health(self, *, timeout: float = 1.0) -> list[Health]:
        """How each server is, in the order of the urls. See `Client.health`."""
        self._require_open()
        return await self._transport.health(check_seconds("timeout", timeout))

    async def close(self) -> None:
        """Close the connection; calls in flight end with `RequestCancelledError`. May be called again."""
        self._is_closed = True
        await self._transport.close()

    async def __aenter__(self) -> Self:
        self._require_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, image: ImageSource, question: Question[Answered], options: TaskOptions) -> Answered:
        return self._whole_result(await self._answer(image, self._task_call(question, options)), question)

    async def _answer(self, image: ImageSource, call: Call) -> Answer:
        # Bytes need neither disk nor encoder, and a hop through the thread pool costs more than to return
        # them.
        encoded = image if isinstance(image, bytes) else await asyncio.to_thread(encode_image, image)
        # Not before: another task may have closed the client in the meantime.
        self._require_open()
        reply = await self._transport.infer(encoded, call)
        return read_answer(call, reply.payload, reply.url)
