"""A run: lists the images, sends a bounded number of them at a time, and records their outcomes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from florence2.bulk.exchange import Exchange
from florence2.bulk.items import Item, Source
from florence2.bulk.state import Record, State

_COMMIT_SECONDS: Final = 0.2
_LISTED_AT_ONCE: Final = 32
_HELD_BYTES: Final = 64 * 2**20  # of images that shards and tables contain, listed at once


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        total: the number of images of all sources; None while it is not known.
        earlier: the number of images that earlier runs have done, failed ones included.
        done: the number of images that this run has done, failed ones included.
        failed: the number of images that failed in this run.
        started: when this run began, in seconds of `time.monotonic()`.
    """

    total: int | None = None
    earlier: int = 0
    done: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Images a second since the run began."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """The time to the end at this rate; None while it is not known."""
        if self.total is None or not self.done:
            return None
        return max(0, self.total - self.earlier - self.done) / self.rate


class BulkRun:
    """Processes the images of a source that have no record in the state.

    Args:
        source: the images.
        exchange: sends them.
        state: the run's records.
        concurrency: the number of images that are sent at a time.
        retry_failed: whether images that failed in earlier runs are processed again.
    """

    def __init__(
        self, source: Source, exchange: Exchange, state: State, *, concurrency: int, retry_failed: bool = False
    ) -> None:
        self._source = source
        self._exchange = exchange
        self._state = state
        self._concurrency = concurrency
        self._retry_failed = retry_failed
        self._records: list[Record] = []
        self._has_ended = threading.Event()
        done, failed = state.counts()
        self.progress = Progress(earlier=done - failed if retry_failed else done)

    async def run(self) -> None:
        """Process all images. Records are kept, however this ends.

        Raises:
            GaveUpError: no server has answered for too long.
            OptionsError: the server rejects an option of all requests.
            InvalidArgumentError: an id occurs twice, or a source cannot be read.
            OSError: a source cannot be listed, or the state cannot be written.
        """
        # A daemon, because the run does not wait for the number of images.
        threading.Thread(target=self._count, name="florence2-bulk-count", daemon=True).start()
        images: asyncio.Queue[tuple[int, Item] | None] = asyncio.Queue(self._concurrency)
        tasks = [asyncio.create_task(self._list(images))]
        tasks += [asyncio.create_task(self._work(images)) for _ in range(self._concurrency)]
        is_over = asyncio.Event()
        committing = asyncio.create_task(self._commit_regularly(is_over))
        # What cannot be kept, e.g. because the disk is full, need not be sent.
        committing.add_done_callback(lambda _: [task.cancel() for task in tasks])
        try:
            await asyncio.gather(*tasks)
        finally:
            self._has_ended.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            is_over.set()
            await committing

    async def _list(self, images: "asyncio.Queue[tuple[int, Item] | None]") -> None:
        listing = self._listing()
        while batch := await asyncio.to_thread(_taken, listing):
            for numbered in batch:
                await images.put(numbered)
        for _ in range(self._concurrency):
            await images.put(None)

    def _listing(self) -> Iterator[tuple[int, Item]]:
        position = -1

        def is_wanted(id_: str) -> bool:
            nonlocal position
            if self._has_ended.is_set():
                raise RuntimeError("the run has ended")  # ends the listing thread, for which the process waits
            position += 1
            return self._state.is_wanted(id_, retry_failed=self._retry_failed)

        for item in self._source.items(is_wanted):
            yield position, item

    async def _work(self, images: "asyncio.Queue[tuple[int, Item] | None]") -> None:
        while (numbered := await images.get()) is not None:
            position, item = numbered
            record = await self._exchange.record(item, position)
            self._records.append(record)
            self.progress.done += 1
            self.progress.failed += record.error is not None

    async def _commit_regularly(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set() or self._records:
            with suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), _COMMIT_SECONDS)
            records, self._records = self._records, []
            if records:
                await asyncio.to_thread(self._state.write, records)

    def _count(self) -> None:
        # If counting fails, so does listing, which reports why.
        with suppress(Exception):
            self.progress.total = self._source.count()


def _taken(listing: Iterator[tuple[int, Item]]) -> list[tuple[int, Item]]:
    """The next images: fewer if their bytes are held in memory."""
    batch: list[tuple[int, Item]] = []
    held = 0
    for numbered in listing:
        batch.append(numbered)
        held += numbered[1].held_bytes
        if len(batch) == _LISTED_AT_ONCE or held >= _HELD_BYTES:
            break
    return batch
