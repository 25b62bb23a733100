"""What is measured, and how much of it: one row per workload.

The counts are a compromise: enough questions for a steady window (`measurement.steady_throughput`) with whole batches
of the conventional server in it, few enough that all rounds of everything end within hours on two slow cores.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from benchmarks.questions import Subject, album_subjects, mixed_subjects


@dataclass(frozen=True)
class ClosedLoad:
    """Callers who ask the next question as soon as they have an answer."""

    callers: int
    questions: int

    @property
    def name(self) -> str:
        """How tables name it."""
        return f"{self.callers} caller{'s' if self.callers > 1 else ''}"


@dataclass(frozen=True)
class OpenLoad:
    """Poisson arrivals at a percentage of the conventional server's capacity."""

    percent: int
    questions: int

    @property
    def name(self) -> str:
        """How tables name it."""
        return f"{self.percent} % of capacity"


@dataclass(frozen=True)
class ServedWorkload:
    """Both servers under the same loads.

    Attributes:
        checkpoint: `base` or `mixed`.
        subjects: makes that many subjects from a seed.
        questions_per_subject: what one subject adds to the questions.
        closed: measured first; the open loads' rates follow from them.
        new_pictures: whether every question is about a picture of its own, so that a cached embedding is a fault.
    """

    name: str
    checkpoint: str
    num_beams: int
    subjects: Callable[[int, int], list[Subject]]
    questions_per_subject: int
    closed: tuple[ClosedLoad, ...]
    open: tuple[OpenLoad, ...]
    new_pictures: bool

    def only(self, names: Collection[str]) -> "ServedWorkload":
        """The same workload under the named loads alone; where none of its own is named, under all."""
        closed = tuple(load for load in self.closed if load.name in names)
        opened = tuple(load for load in self.open if load.name in names)
        return replace(self, closed=closed, open=opened) if closed or opened else self

    @property
    def loads(self) -> tuple[ClosedLoad | OpenLoad, ...]:
        """All of them, in the order in which they are measured."""
        return (*self.closed, *self.open)

    @property
    def subject_count(self) -> int:
        """Subjects that the largest load needs."""
        return -(-max(load.questions for load in self.loads) // self.questions_per_subject)


@dataclass(frozen=True)
class Plan:
    """How much a run measures.

    Attributes:
        served: the workloads of two servers.
        captions: questions of `single`, one search, one round.
        round_trips: of `overhead`, one round.
        repetitions: of `encoding`, `decode step` and `loading`.
        rounds: measurements of everything else.
    """

    served: tuple[ServedWorkload, ...]
    captions: int
    round_trips: int
    repetitions: int
    rounds: int


def _mixed(closed: tuple[ClosedLoad, ...], opened: tuple[OpenLoad, ...]) -> ServedWorkload:
    return ServedWorkload("mixed", "mixed", 1, mixed_subjects, 1, closed, opened, new_pictures=True)


def _beams(questions: int) -> ServedWorkload:
    return ServedWorkload("beams", "mixed", 3, mixed_subjects, 1, (ClosedLoad(16, questions),), (), new_pictures=True)


def _album(callers: int, questions: int) -> ServedWorkload:
    closed = (ClosedLoad(callers, questions),)
    return ServedWorkload("album", "base", 1, album_subjects, 8, closed, (), new_pictures=False)


FULL = Plan(
    served=(
        _mixed(
            (ClosedLoad(1, 7), ClosedLoad(4, 14), ClosedLoad(16, 48), ClosedLoad(64, 64)),
            (OpenLoad(50, 14), OpenLoad(80, 28), OpenLoad(120, 28)),
        ),
        _beams(48),
        _album(8, 24),
    ),
    captions=6,
    round_trips=300,
    repetitions=9,
    rounds=3,
)
QUICK = Plan(
    served=(_mixed((ClosedLoad(4, 14),), (OpenLoad(80, 14),)),),
    captions=2,
    round_trips=100,
    repetitions=3,
    rounds=1,
)
WORKLOADS = ("mixed", "beams", "album", "single", "encoding", "decode step", "loading", "overhead")
