"""Measures one replica of our server, up to its capacity."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.callers import Caller
from benchmarks.harness.device import EXACT_DTYPE
from benchmarks.harness.load import closed_loop, open_loop, poisson_schedule
from benchmarks.harness.mismatches import Mismatch, mismatches
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool
from benchmarks.harness.requests import Request
from benchmarks.harness.servers import OURS, running
from benchmarks.harness.spread import percentile

# Callers of each closed loop, and the requests that they send in total.
CLOSED = ((1, 7), (4, 14), (16, 48))
# Arrival rate of each open loop in percent of the replica's capacity, and the number of arrivals.
OPEN = ((50, 48), (70, 48), (90, 48))
_WARM_UP_REQUESTS = 4


class Replica:
    """Our server under one load after another; all responses are compared with the expected answers.

    Args:
        pool: the requests.
        seed: of the arrivals in open loops.
        progress: shows the measurements.

    Attributes:
        mismatches: responses that differ from the expected answers.
    """

    def __init__(self, pool: Pool, seed: int, progress: RunProgress) -> None:
        self.mismatches: list[Mismatch] = []
        self._pool = pool
        self._seed = seed
        self._progress = progress
        self._stamp = 0

    def measure(
        self, checkpoint: Path, logs: Path, rounds: int, capacity: Callable[[Sequence[Mapping[str, Any]]], float]
    ) -> list[dict[str, Any]]:
        """Measure all loads.

        Args:
            checkpoint: folder of the weights to serve.
            logs: folder for the server's log.
            rounds: measurements of each load.
            capacity: answers per second that the closed loops imply; sets the rates of the open loops.

        Returns:
            For each load its shape, and for each round its figures in seconds and answers per second.
        """
        with ExitStack() as stack:
            server = stack.enter_context(running(OURS, checkpoint, logs, EXACT_DTYPE))
            caller = OURS.connect(server.grpc_url)
            stack.callback(caller.close)
            closed = [_shape(f"{callers} callers", requests, callers=callers) for callers, requests in CLOSED]
            self._rounds(caller, closed, rounds)
            full_rate = capacity(closed)
            opened = [
                _shape(f"{percent} % of capacity", requests, percent=percent, rate=percent / 100 * full_rate)
                for percent, requests in OPEN
            ]
            self._rounds(caller, opened, rounds)
        return closed + opened

    def _rounds(self, caller: Caller, loads: Sequence[dict[str, Any]], rounds: int) -> None:
        for number in range(rounds):
            for load in loads:
                load["rounds"].append(self._measure(caller, load, f"{load['name']}, round {number + 1}"))

    def _measure(self, caller: Caller, load: Mapping[str, Any], where: str) -> dict[str, float]:
        shortest = sorted(self._pool.requests, key=lambda request: request.answer_tokens)[:_WARM_UP_REQUESTS]
        closed_loop(caller, self._fresh(shortest), 1, 1, lambda: None)
        requests = self._fresh(self._pool.requests[: load["requests"]])
        with self._progress.measurement(where, len(requests)) as advance:
            if "callers" in load:
                exchanges = closed_loop(caller, requests, load["callers"], 1, advance)
            else:
                exchanges = open_loop(caller, requests, arrivals(load, self._seed), 1, advance)
        self.mismatches += mismatches(where, exchanges, self._pool.expected)
        seconds = [exchange.latency for exchange in exchanges]
        return {
            # With a single caller, latency minus decoding is the cost of encoding.
            "encode": median(exchange.latency - (exchange.response.decode_seconds or 0.0) for exchange in exchanges),
            "token": sum(exchange.response.decode_seconds or 0.0 for exchange in exchanges)
            / sum(exchange.request.answer_tokens for exchange in exchanges),
            "throughput": len(exchanges) / exchanges[-1].end,
            "latency_p50": percentile(seconds, 50),
            "latency_p95": percentile(seconds, 95),
        }

    def _fresh(self, requests: list[Request]) -> list[Request]:
        """The requests with images that are in no cache of the server."""
        self._stamp += 1
        return [request.stamped(f"replica {self._stamp}") for request in requests]


def arrivals(load: Mapping[str, Any], seed: int) -> list[float]:
    """The arrival times of an open loop, in seconds."""
    return poisson_schedule(load["rate"], load["requests"], seed)


def _shape(name: str, requests: int, **shape: float) -> dict[str, Any]:
    return {"name": name, "requests": requests, **shape, "rounds": []}
