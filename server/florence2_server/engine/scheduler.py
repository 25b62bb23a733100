"""Who waits, who runs, and where in the decode batch. Imports no torch."""

from collections import deque
from dataclasses import dataclass

from florence2_engine.request import Request


@dataclass(frozen=True)
class Move:
    """What is at `source` goes on at `target`."""

    source: int
    target: int


@dataclass(frozen=True)
class Departure:
    """What moves into the places of a request that left.

    Attributes:
        slot: the move between slots, if there is one.
        rows: the moves between rows, in order, each with the request whose beam moves.
    """

    slot: Move | None
    rows: list[tuple[Move, Request]]


class Scheduler:
    """First come, first served, over a fixed number of slots and rows.

    A request takes one slot, for what its beams share, and one row of the decode batch for each beam. Both are filled
    from the first on without gaps, so that a decode step works on slices of the caches and copies nothing; when a
    request leaves, the last ones take its places.

    Args:
        slots: the most requests that run at once.
        rows: the most beams, over all requests.
        prefill_batch: the most requests that are encoded between two decode steps.
        image_batch: the most images that are encoded between two decode steps.

    Attributes:
        slots, row_limit, prefill_batch, image_batch: the arguments.
        waiting: requests that have no slot yet, oldest first.
        running: requests by slot.
    """

    def __init__(self, slots: int, rows: int, prefill_batch: int, image_batch: int) -> None:
        self.slots = slots
        self.row_limit = rows
        self.prefill_batch = prefill_batch
        self.image_batch = image_batch
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._rows: list[tuple[Request, int]] = []

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.running)

    @property
    def rows(self) -> int:
        """How many rows are in use."""
        return len(self._rows)

    def add(self, request: Request) -> None:
        """Put a request at the end of the queue."""
        self.waiting.append(request)

    def next_prefill(self) -> list[Request]:
        """Take from the queue what is encoded next: as many in a row as there is room for and one prefill takes."""
        requests: list[Request] = []
        rows = len(self._rows)
        images = set()
        while self.waiting and len(requests) < min(self.prefill_batch, self.slots - len(self.running)):
            request = self.waiting[0]
            rows += request.search.beams
            if request.image.embedding is None:
                images.add(request.image)
            if rows > self.row_limit or len(images) > self.image_batch:
                break
            requests.append(self.waiting.popleft())
        return requests

    def start(self, requests: list[Request]) -> None:
        """Give each request the next slot, and each of its beams the next row."""
        for request in requests:
            self.running.append(request)
            request.rows = list(range(len(self._rows), len(self._rows) + request.search.beams))
            self._rows += [(request, beam) for beam in range(request.search.beams)]
        within = len(self.running) <= self.slots and len(self._rows) <= self.row_limit
        assert within, "next_prefill hands out no more than there is room for"

    def remove(self, slot: int) -> Departure:
        """Free the places of the request in `slot`. Returns the moves that close the gaps."""
        leaver = self.running[slot]
        last = self.running.pop()
        slot_move = None
        if last is not leaver:
            self.running[slot] = last
            slot_move = Move(source=len(self.running), target=slot)
        row_moves = []
        for row in sorted(leaver.rows, reverse=True):  # from the end: the last row is then never one that is freed
            request, beam = self._rows.pop()
            if row < len(self._rows):
                self._rows[row] = (request, beam)
                request.rows[beam] = row
                row_moves.append((Move(source=len(self._rows), target=row), request))
        leaver.rows = []
        return Departure(slot_move, row_moves)
