"""The admission queue: the requests that were accepted and are not yet submitted to the engine.

Requests are admitted as long as they fit within two limits: the number of requests that wait, and the memory of the
images of all unanswered requests. Their generations wait in order of priority, then of arrival. A generation takes a
place at the engine until it ends. There are a few more places than slots, so that images are decoded, and their prompts
tokenized, while the decode batch is full.
"""

import bisect
import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from florence2_server.config import AdmissionConfig

ItemT = TypeVar("ItemT")

# Triton keeps the caller's message until the answer, and the stub keeps a copy of the image for the engine.
IMAGE_COPIES = 2


class RefusedError(Exception):
    """A request is over a limit of the queue. The message names the limit.

    Attributes:
        reason: the limit, as metrics call it.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(eq=False)
class Admission:
    """An admitted request.

    Attributes:
        number: its place in the order of arrival.
        memory: bytes that its images count against the limit.
        since: when it was admitted, in seconds of the monotonic clock.
        generations: how many of its generations have been queued.
    """

    number: int
    memory: int
    since: float = field(default_factory=time.monotonic)
    generations: int = 0


@dataclass(frozen=True)
class QueueStatistics:
    """The state of an admission queue.

    Attributes:
        requests: requests that wait: none of their generations has been submitted.
        memory: bytes of memory that the images of all unanswered requests take.
        oldest: when the request that has waited longest was admitted; None if none waits.
        submitted: generations at the engine.
    """

    requests: int
    memory: int
    oldest: float | None
    submitted: int


@dataclass(frozen=True, order=True)
class _Turn:
    """The order of generations: the lowest is next.

    The second generation of a request takes its turn as if the request had arrived one request later, the third two
    later, and so on. So a request of sixty generations alternates with those that arrive after it, and a steady stream
    of arrivals cannot hold it up either.
    """

    priority: int
    arrival: int
    generation: int


@dataclass(frozen=True)
class _Waiting(Generic[ItemT]):
    turn: _Turn
    admission: Admission
    item: ItemT


class AdmissionQueue(Generic[ItemT]):
    """The requests that were admitted and the generations that wait. Not thread-safe: its owner holds a lock.

    Args:
        config: the limits.
        slots: the number of the engine's slots.
    """

    def __init__(self, config: AdmissionConfig, slots: int) -> None:
        self._config = config
        self._free_places = slots + config.ahead
        self._submitted = 0
        self._arrived = 0
        self._memory = 0
        self._admitted: set[Admission] = set()
        self._unsubmitted: dict[Admission, None] = {}  # in the order of arrival
        self._waiting: list[_Waiting[ItemT]] = []  # in the order of their turns

    @property
    def statistics(self) -> QueueStatistics:
        """The state of the queue."""
        oldest = next(iter(self._unsubmitted), None)
        return QueueStatistics(len(self._unsubmitted), self._memory, oldest.since if oldest else None, self._submitted)

    @property
    def waiting(self) -> list[ItemT]:
        """The generations that wait, in the order of their turns."""
        return [waiting.item for waiting in self._waiting]

    def check_requests(self) -> None:
        """Check whether there is room for one more request, whatever its size.

        Raises:
            RefusedError: there is none.
        """
        limit = self._config.queue_requests
        if len(self._unsubmitted) >= limit:
            message = f"queue_requests: got {limit + 1} waiting requests, expected at most {limit}; try again later"
            raise RefusedError("requests", message)

    def admit(self, image_bytes: int) -> Admission:
        """Admit a request with images of this size together. `release` has to follow once it is answered.

        Raises:
            RefusedError: there is no room for it. A request is never refused for its size alone.
        """
        self.check_requests()
        memory, limit = IMAGE_COPIES * image_bytes, self._config.queue_bytes
        if self._admitted and self._memory + memory > limit:
            raise RefusedError(
                "bytes",
                f"queue_bytes: got {self._memory + memory} bytes of memory for images, expected at most {limit}; "
                "try again later",
            )
        self._arrived += 1
        self._memory += memory
        admission = Admission(self._arrived, memory)
        self._admitted.add(admission)
        self._unsubmitted[admission] = None
        return admission

    def release(self, admission: Admission) -> None:
        """Forget an answered request and those of its generations that still wait."""
        if admission not in self._admitted:
            return
        self._admitted.remove(admission)
        self._unsubmitted.pop(admission, None)
        self._memory -= admission.memory
        self._waiting = [waiting for waiting in self._waiting if waiting.admission is not admission]

    def is_waiting(self, admission: Admission) -> bool:
        """Whether none of the request's generations has been submitted."""
        return admission in self._unsubmitted

    def add(self, admission: Admission, priority: int, item: ItemT) -> None:
        """Queue a generation of an admitted request; it is dropped if the request has been released."""
        if admission not in self._admitted:
            return
        turn = _Turn(priority, admission.number + admission.generations, admission.generations)
        admission.generations += 1
        bisect.insort(self._waiting, _Waiting(turn, admission, item), key=lambda waiting: waiting.turn)

    def launch(self) -> ItemT | None:
        """Take the next generation, which then has a place at the engine until `land`. None if no place is free."""
        if not self._waiting or self._free_places == 0:
            return None
        next_one = self._waiting.pop(0)
        self._unsubmitted.pop(next_one.admission, None)
        self._free_places -= 1
        self._submitted += 1
        return next_one.item

    def land(self) -> None:
        """Free the place of a generation that has ended."""
        self._free_places += 1
        self._submitted -= 1
