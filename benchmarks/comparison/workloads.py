"""The workloads, and how many requests each sends.

The counts are a compromise: enough requests for a steady window (`measurement.steady_throughput`) that contains whole
batches of the conventional server, few enough that a full run ends within hours on two slow cores.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from benchmarks.harness.requests import RequestGroup, album_groups, mixed_groups


@dataclass(frozen=True)
class ClosedLoad:
    """Callers that each send the next request as soon as they have a response."""

    callers: int
    requests: int

    @property
    def name(self) -> str:
        """The name in tables and on the command line."""
        return f"{self.callers} caller{'s' if self.callers > 1 else ''}"


@dataclass(frozen=True)
class OpenLoad:
    """Poisson arrivals at a percentage of the conventional server's capacity."""

    percent: int
    requests: int

    @property
    def name(self) -> str:
        """The name in tables and on the command line."""
        return f"{self.percent} % of capacity"


@dataclass(frozen=True)
class ServedWorkload:
    """Both servers under the same loads.

    Attributes:
        checkpoint: `base` or `mixed`.
        groups: makes a number of groups from a seed.
        requests_per_group: number of requests about one image.
        closed: measured first; the rates of the open loads are derived from them.
        new_images: whether every request is about an image of its own, so that a cached embedding is an error.
    """

    name: str
    checkpoint: str
    num_beams: int
    groups: Callable[[int, int], list[RequestGroup]]
    requests_per_group: int
    closed: tuple[ClosedLoad, ...]
    open: tuple[OpenLoad, ...]
    new_images: bool

    def only(self, names: Collection[str]) -> "ServedWorkload":
        """The workload limited to the named loads; unchanged if none of them is named."""
        closed = tuple(load for load in self.closed if load.name in names)
        opened = tuple(load for load in self.open if load.name in names)
        return replace(self, closed=closed, open=opened) if closed or opened else self

    @property
    def loads(self) -> tuple[ClosedLoad | OpenLoad, ...]:
        """All loads in the order of measurement."""
        return (*self.closed, *self.open)

    @property
    def group_count(self) -> int:
        """Number of groups that the largest load needs."""
        return -(-max(load.requests for load in self.loads) // self.requests_per_group)


@dataclass(frozen=True)
class Plan:
    """How much a run measures.

    Attributes:
        served: the workloads of two servers.
        captions: requests of `single`, per search and round.
        round_trips: of `overhead`, per round.
        repetitions: of `encoding`, `decode step`, `adapters` and `loading`.
        rounds: of everything else.
    """

    served: tuple[ServedWorkload, ...]
    captions: int
    round_trips: int
    repetitions: int
    rounds: int


def _mixed(closed: tuple[ClosedLoad, ...], opened: tuple[OpenLoad, ...]) -> ServedWorkload:
    return ServedWorkload("mixed", "mixed", 1, mixed_groups, 1, closed, opened, new_images=True)


def _beams(requests: int) -> ServedWorkload:
    return ServedWorkload("beams", "mixed", 3, mixed_groups, 1, (ClosedLoad(16, requests),), (), new_images=True)


def _album(callers: int, requests: int) -> ServedWorkload:
    closed = (ClosedLoad(callers, requests),)
    return ServedWorkload("album", "base", 1, album_groups, 8, closed, (), new_images=False)


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
WORKLOADS = ("mixed", "beams", "album", "single", "encoding", "decode step", "adapters", "loading", "overhead")
