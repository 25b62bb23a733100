"""Who waits, who runs, and on which row of the decode batch. Imports no torch."""

from collections import deque
from dataclasses import dataclass

from florence2_engine.request import Request


@dataclass(frozen=True)
class RowMove:
    """The request on row `source` of the decode batch goes on at row `target`."""

    source: int
    target: int


class Scheduler:
    """First come, first served, over a fixed number of rows.

    Running requests always fill the first rows of the batch without gaps, so that a decode step works on slices of the
    caches and copies nothing; when one leaves, the last one takes its place.

    Attributes:
        waiting: requests that have no row yet, oldest first.
        running: requests by row.
    """

    def __init__(self, slots: int, prefill_batch: int) -> None:
        self._slots = slots
        self._prefill_batch = prefill_batch
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        self.waiting.append(request)

    def next_prefill(self) -> list[Request]:
        """Take the requests that are encoded next from the queue: as many as there are rows and one prefill takes."""
        room = min(self._slots - len(self.running), self._prefill_batch, len(self.waiting))
        return [self.waiting.popleft() for _ in range(room)]

    def start(self, requests: list[Request]) -> None:
        """Give each request the next row."""
        assert len(self.running) + len(requests) <= self._slots, "next_prefill hands out no more than there is room for"
        self.running.extend(requests)

    def remove(self, row: int) -> RowMove | None:
        """Free a row. Returns the move that closes the gap, if there is one."""
        last = self.running.pop()
        if row == len(self.running):
            return None
        self.running[row] = last
        return RowMove(source=len(self.running), target=row)
