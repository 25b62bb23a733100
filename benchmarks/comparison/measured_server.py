"""A running server under one load after another."""

from collections.abc import Callable, Sequence

from benchmarks.comparison.measurement import Measurement, measure
from benchmarks.comparison.peak_memory import PeakMemory
from benchmarks.comparison.workloads import ClosedLoad, OpenLoad
from benchmarks.harness.callers import Caller
from benchmarks.harness.load import Exchange, closed_loop, open_loop, poisson_schedule
from benchmarks.harness.mismatches import Mismatch, mismatches
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool
from benchmarks.harness.requests import Request

# Unmeasured requests before each measurement, to warm up allocators, caches and clocks.
_WARM_UP_REQUESTS = 4


class MeasuredServer:
    """Sends a pool's requests to a running server, and compares its responses with the expected answers.

    Args:
        caller: connection to the server.
        process_id: of the server.
        pool: the requests.
        num_beams: of every request.
        seed: of the arrivals in open loops.

    Attributes:
        mismatches: the responses that differ from the expected answers.
    """

    def __init__(self, caller: Caller, process_id: int, pool: Pool, num_beams: int, seed: int) -> None:
        self.mismatches: list[Mismatch] = []
        self._caller = caller
        self._process_id = process_id
        self._pool = pool
        self._num_beams = num_beams
        self._seed = seed
        self._stamp = 0

    def measure(self, load: ClosedLoad | OpenLoad, rate: float, where: str, progress: RunProgress) -> Measurement:
        """Apply a load once, after a warm-up.

        Args:
            load: the first `load.requests` requests of the pool are sent.
            rate: arrivals per second of an open loop.
            where: name of the measurement.
            progress: shows it.
        """
        self._warm_up(load)
        requests = self._fresh(self._pool.requests[: load.requests])
        with progress.measurement(where, len(requests)) as advance, PeakMemory(self._process_id) as memory:
            exchanges = self._apply(load, requests, rate, advance)
        self.mismatches += mismatches(where, exchanges, self._pool.expected)
        return measure(exchanges, load.callers if isinstance(load, ClosedLoad) else None, memory.peak_bytes)

    def _warm_up(self, load: ClosedLoad | OpenLoad) -> None:
        shortest = sorted(self._pool.requests, key=lambda request: request.answer_tokens)[:_WARM_UP_REQUESTS]
        callers = min(_WARM_UP_REQUESTS, load.callers) if isinstance(load, ClosedLoad) else _WARM_UP_REQUESTS
        closed_loop(self._caller, self._fresh(shortest), callers, self._num_beams, lambda: None)

    def _apply(
        self, load: ClosedLoad | OpenLoad, requests: Sequence[Request], rate: float, advance: Callable[[], None]
    ) -> list[Exchange]:
        if isinstance(load, ClosedLoad):
            return closed_loop(self._caller, requests, load.callers, self._num_beams, advance)
        due = poisson_schedule(rate, len(requests), self._seed)
        return open_loop(self._caller, requests, due, self._num_beams, advance)

    def _fresh(self, requests: Sequence[Request]) -> list[Request]:
        """The requests with images that are in no cache of the server."""
        self._stamp += 1
        return [request.stamped(f"measurement {self._stamp}") for request in requests]
