"""Assigns slots and rows of the decode batch to generations. Imports no torch."""

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from florence2_server.engine.generation import Generation

if TYPE_CHECKING:  # it imports torch
    from florence2_server.engine.images.decoding import Image


@dataclass(frozen=True)
class BatchLimits:
    """Capacity of the decode batch and of one prefill.

    Attributes:
        slots: the maximum number of generations in the decode batch.
        rows: the maximum number of beams in the decode batch.
        prefill_batch: the maximum number of generations in one prefill.
        image_batch: the maximum number of images encoded in one prefill, or ahead of one.
        encoded_ahead: the number of waiting generations whose images are encoded while the decode batch is full.
    """

    slots: int
    rows: int
    prefill_batch: int
    image_batch: int
    encoded_ahead: int = 0


@dataclass(frozen=True)
class Move:
    """Moves the contents of `source` to `target`."""

    source: int
    target: int


@dataclass(frozen=True)
class Compaction:
    """The moves that close the gaps after generations were removed, in order.

    Attributes:
        slots: moves between slots.
        rows: moves between rows, each with the generation whose beam moves.
    """

    slots: list[Move]
    rows: list[tuple[Move, Generation]]


class Scheduler:
    """First come, first served, over a fixed number of slots and rows.

    A generation takes one slot of the decode batch, for what its beams share, and one row for each beam. Slots and rows
    in use are always the first ones, without gaps, so that a decode step works on slices of the caches and copies
    nothing: when a generation is removed, the last ones move into its places.

    Args:
        limits: capacity of the decode batch and of one prefill.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []  # by slot
        self._rows: list[tuple[Generation, int]] = []  # by row: a generation and its beam

    def __bool__(self) -> bool:
        """Whether any generation waits or runs."""
        return bool(self._waiting or self._running)

    @property
    def waiting_count(self) -> int:
        """The number of generations that have no slot yet."""
        return len(self._waiting)

    @property
    def running_count(self) -> int:
        """The number of generations in the decode batch."""
        return len(self._running)

    @property
    def waiting(self) -> list[Generation]:
        """The generations that have no slot yet, in the order of the queue."""
        return list(self._waiting)

    @property
    def batch(self) -> list[Generation]:
        """The generations in the decode batch, in the order of their slots."""
        return list(self._running)

    def add(self, generation: Generation) -> None:
        """Append a generation to the queue."""
        self._waiting.append(generation)

    def schedule(self) -> list[Generation]:
        """Take the next prefill from the head of the queue, and assign its slots and rows.

        Returns:
            as many generations as fit into the decode batch and into one prefill, in consecutive slots.
        """
        prefill: list[Generation] = []
        new_images = set()
        while self._waiting and len(prefill) < self._limits.prefill_batch:
            generation = self._waiting[0]
            if generation.image.embedding is None:
                new_images.add(generation.image)
            if not self._has_room_for(generation) or len(new_images) > self._limits.image_batch:
                break
            self._place(self._waiting.popleft())
            prefill.append(generation)
        return prefill

    def images_ahead(self) -> "list[Image]":
        """The images to encode next, in the order of the queue, while no waiting generation fits into the batch."""
        next_ones = itertools.islice(self._waiting, self._limits.encoded_ahead)
        new = dict.fromkeys(generation.image for generation in next_ones if generation.image.may_be_encoded_ahead)
        return list(new)[: self._limits.image_batch]

    def remove(self, generations: Iterable[Generation]) -> Compaction:
        """Remove generations from the decode batch. The caller has to carry out the moves that close the gaps."""
        compaction = Compaction([], [])
        # From the end, so that no generation moves that is about to be removed itself.
        for generation in sorted(generations, key=lambda generation: generation.slot, reverse=True):
            self._free_slot(generation, compaction)
            self._free_rows(generation, compaction)
        return compaction

    def remove_cancelled(self) -> Compaction:
        """Remove cancelled generations from the queue and from the decode batch, as `remove` does."""
        self._waiting = deque(generation for generation in self._waiting if not generation.future.cancelled())
        return self.remove([generation for generation in self._running if generation.future.cancelled()])

    def clear(self) -> list[Generation]:
        """Remove all generations and return them."""
        generations = [*self._waiting, *self._running]
        self._waiting.clear()
        self.remove(self._running)
        return generations

    def _has_room_for(self, generation: Generation) -> bool:
        rows = len(self._rows) + generation.search.beams
        return len(self._running) < self._limits.slots and rows <= self._limits.rows

    def _place(self, generation: Generation) -> None:
        """Assign the next slot, and the next row for each beam."""
        generation.slot = len(self._running)
        self._running.append(generation)
        for beam in range(generation.search.beams):
            generation.rows.append(len(self._rows))
            self._rows.append((generation, beam))

    def _free_slot(self, generation: Generation, compaction: Compaction) -> None:
        last = self._running.pop()
        if last is not generation:
            compaction.slots.append(Move(last.slot, generation.slot))
            self._running[generation.slot] = last
            last.slot = generation.slot
        generation.slot = -1

    def _free_rows(self, generation: Generation, compaction: Compaction) -> None:
        for row in sorted(generation.rows, reverse=True):  # from the end, so that the last row is never a freed one
            last, beam = self._rows.pop()
            if row < len(self._rows):
                compaction.rows.append((Move(len(self._rows), row), last))
                self._rows[row] = (last, beam)
                last.rows[beam] = row
        generation.rows = []
