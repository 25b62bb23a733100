"""`Client.map`: requests about many images in threads."""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from queue import SimpleQueue
from typing import Generic, TypeAlias

from florence2 import v1
from florence2.client.answers import Answer
from florence2.client.mapping import AdaptiveLimit, ImageT, InOrder, MapOutcome, MapRequests, encode_one, window
from florence2.errors import Florence2Error, RequestCancelledError, UnavailableError
from florence2.options import RunOptions
from florence2.transports.protocol import Cancellation

Send: TypeAlias = Callable[[bytes, v1.TaskRequest, RunOptions, Cancellation, Callable[[float], None]], Answer]
"""Sends a request that can be cancelled, and calls a function when it is refused (`RequestContext.on_refusal`)."""


def map_in_threads(
    images: Iterable[ImageT], requests: MapRequests[ImageT], send: Send, concurrency: int, *, ordered: bool
) -> Generator[MapOutcome[ImageT], None, None]:
    """Yield the outcomes. Closing the generator cancels the requests in flight, and joins the threads."""
    done: SimpleQueue[Future[MapOutcome[ImageT]]] = SimpleQueue()
    workers = _Workers(requests, send, AdaptiveLimit(concurrency))
    in_order: InOrder[ImageT] = InOrder(is_ordered=ordered)
    most, held = window(concurrency, ordered=ordered), 0
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix="florence2-map")
    try:
        for index, image in enumerate(images):
            # With the caller's context variables, among them the current span.
            pool.submit(copy_context().run, workers.outcome, index, image).add_done_callback(done.put)
            held += 1
            # Outcomes that are there are yielded at once: the next image may take long to come.
            while held >= most or not done.empty():
                for outcome in in_order.add(done.get().result()):
                    held -= 1
                    yield outcome
        while held:
            for outcome in in_order.add(done.get().result()):
                held -= 1
                yield outcome
    finally:
        workers.cancel()
        pool.shutdown(cancel_futures=True)


class _Workers(Generic[ImageT]):
    """The work of the threads. It has no reference to the generator, which ends when the caller drops it."""

    def __init__(self, requests: MapRequests[ImageT], send: Send, limit: AdaptiveLimit) -> None:
        self._requests = requests
        self._send = send
        self._limit = limit
        self._cancellation = Cancellation()
        self._changed = threading.Condition()
        self._active = 0

    def outcome(self, index: int, image: ImageT) -> MapOutcome[ImageT]:
        """Send the request about an image, as soon as the limit allows it."""
        with self._turn():
            try:
                return MapOutcome(index, image, answer=self._answer(index, image))
            except (Florence2Error, OSError) as error:
                return MapOutcome(index, image, error=error)

    def cancel(self) -> None:
        """Cancel all requests, and start no others."""
        self._cancellation.cancel()
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._active < self._limit.value or self._cancellation.is_cancelled)
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify(2)  # one in place of this one, and one more if the limit has grown

    def _answer(self, index: int, image: ImageT) -> Answer:
        if self._cancellation.is_cancelled:
            raise RequestCancelledError("the caller closed the iterator")
        request = self._requests.of(image)
        encoded = encode_one(image)
        started = time.monotonic()
        options = self._requests.call_options(index)
        try:
            answer = self._send(encoded, request, options, self._cancellation, self._limit.on_refusal)
        except UnavailableError as error:
            if error.is_refusal:
                self._limit.on_refusal(started)
            raise
        self._limit.on_answer()
        return answer
