"""`AsyncClient.map`: requests about many images in tasks."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeAlias

from florence2 import v1
from florence2.client.answers import Answer
from florence2.client.mapping import AdaptiveLimit, ImageT, InOrder, MapOutcome, MapRequests, encode_one, window
from florence2.errors import Florence2Error, UnavailableError
from florence2.options import RunOptions

Send: TypeAlias = Callable[[bytes, v1.TaskRequest, RunOptions, Callable[[float], None]], Awaitable[Answer]]
"""Sends a request, and calls a function when it is refused (`RequestContext.on_refusal`)."""


async def map_in_tasks(
    images: Iterable[ImageT] | AsyncIterable[ImageT],
    requests: MapRequests[ImageT],
    send: Send,
    concurrency: int,
    *,
    ordered: bool,
) -> AsyncGenerator[MapOutcome[ImageT], None]:
    """Yield the outcomes. Closing the generator cancels the requests in flight, and waits for the tasks."""
    tasks = _Tasks(requests, send, concurrency, window(concurrency, ordered=ordered))
    in_order: InOrder[ImageT] = InOrder(is_ordered=ordered)
    feeder = asyncio.create_task(tasks.feed(images))
    feeder.add_done_callback(tasks.done.put_nowait)
    total, yielded = None, 0
    try:
        while total is None or yielded < total:
            ended = (await tasks.done.get()).result()
            if isinstance(ended, int):
                total = ended
                continue
            for outcome in in_order.add(ended):
                tasks.release()
                yielded += 1
                yield outcome
    finally:
        await tasks.cancel(feeder)


class _Tasks(Generic[ImageT]):
    """The tasks: the feeder, which takes the images from the caller, and one for each request in flight.

    Attributes:
        done: the tasks that ended. The feeder returns the number of images.
    """

    def __init__(self, requests: MapRequests[ImageT], send: Send, concurrency: int, window: int) -> None:
        self.done: asyncio.Queue[asyncio.Task[MapOutcome[ImageT]] | asyncio.Task[int]] = asyncio.Queue()
        self._requests = requests
        self._send = send
        self._limit = AdaptiveLimit(concurrency)
        self._held = asyncio.Semaphore(window)
        self._active: set[asyncio.Task[MapOutcome[ImageT]]] = set()
        self._changed = asyncio.Event()

    async def feed(self, images: Iterable[ImageT] | AsyncIterable[ImageT]) -> int:
        """Start a task for each image, which is taken when its request can be sent. Returns the number of images."""
        source = aiter(images) if isinstance(images, AsyncIterable) else _asynchronous(images)
        for index in itertools.count():
            await self._held.acquire()
            while len(self._active) >= self._limit.value:
                self._changed.clear()
                await self._changed.wait()
            try:
                image = await anext(source)
            except StopAsyncIteration:
                return index
            task = asyncio.create_task(self._outcome(index, image))
            self._active.add(task)
            task.add_done_callback(self._end)
        raise AssertionError("count() does not end")

    def release(self) -> None:
        """Make room for another image, because an outcome is yielded."""
        self._held.release()

    async def cancel(self, feeder: asyncio.Task[int]) -> None:
        """Cancel all tasks, and wait until they have ended."""
        tasks = [feeder, *self._active]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _end(self, task: asyncio.Task[MapOutcome[ImageT]]) -> None:
        self._active.discard(task)
        self._changed.set()
        self.done.put_nowait(task)
        if not task.cancelled():
            task.exception()  # retrieved, or asyncio would log it if another task's error was raised first

    async def _outcome(self, index: int, image: ImageT) -> MapOutcome[ImageT]:
        try:
            return MapOutcome(index, image, answer=await self._answer(index, image))
        except (Florence2Error, OSError) as error:
            return MapOutcome(index, image, error=error)

    async def _answer(self, index: int, image: ImageT) -> Answer:
        request = self._requests.of(image)
        # Bytes need neither the disk nor an encoder.
        encoded = image if isinstance(image, bytes) else await asyncio.to_thread(encode_one, image)
        started = time.monotonic()
        try:
            answer = await self._send(encoded, request, self._requests.call_options(index), self._limit.on_refusal)
        except UnavailableError as error:
            if error.is_refusal:
                self._limit.on_refusal(started)
            raise
        self._limit.on_answer()
        return answer


async def _asynchronous(images: Iterable[ImageT]) -> AsyncIterator[ImageT]:
    for image in images:
        yield image
        await asyncio.sleep(0)  # lets requests proceed, even if the iterable blocks
