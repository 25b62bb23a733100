"""Runs a workload on both servers in alternation: one under load, the other idle."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.comparison.measured_server import MeasuredServer
from benchmarks.comparison.measurement import Measurement
from benchmarks.comparison.sides import CONVENTIONAL, SIDES
from benchmarks.comparison.workloads import ClosedLoad, OpenLoad, ServedWorkload
from benchmarks.harness.mismatches import Mismatch
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool
from benchmarks.harness.servers import Side, running


class CachedEmbeddingError(Exception):
    """Our server used a cached embedding although every image was new."""


class WorkloadRun:
    """One run of a workload.

    Args:
        workload: the loads.
        pool: the requests.
        seed: of the arrivals in open loops.
        dtype: data type of both servers.
        progress: shows the measurements.
    """

    def __init__(self, workload: ServedWorkload, pool: Pool, seed: int, dtype: str, progress: RunProgress) -> None:
        self._workload = workload
        self._pool = pool
        self._seed = seed
        self._dtype = dtype
        self._progress = progress
        self._servers: dict[str, MeasuredServer] = {}

    @property
    def mismatches(self) -> list[Mismatch]:
        """The responses that differ from the expected answers."""
        return [mismatch for server in self._servers.values() for mismatch in server.mismatches]

    def run(self, checkpoint: Path, logs: Path, rounds: int) -> list[dict[str, Any]]:
        """Measure all loads, closed loops first.

        Returns:
            For each load its name and shape, and for each round and side the fields of a measurement.
        """
        with ExitStack() as stack:
            for side in SIDES:
                self._servers[side.name] = self._start(side, checkpoint, logs, stack)
            closed = self._rounds(self._workload.closed, rounds, capacity=0.0)
            capacity = max(
                (median(each[CONVENTIONAL.name]["throughput"] for each in load["rounds"]) for load in closed),
                default=0.0,
            )
            return closed + self._rounds(self._workload.open, rounds, capacity)

    def _start(self, side: Side, checkpoint: Path, logs: Path, stack: ExitStack) -> MeasuredServer:
        self._progress.say(f"{self._workload.name}: starting {side.name}")
        server = stack.enter_context(running(side, checkpoint, logs, self._dtype))
        caller = side.connect(server.grpc_url)
        stack.callback(caller.close)
        return MeasuredServer(caller, server.process_id, self._pool, self._workload.num_beams, self._seed)

    def _rounds(self, loads: Sequence[ClosedLoad | OpenLoad], rounds: int, capacity: float) -> list[dict[str, Any]]:
        described = [(load, _description(load, capacity)) for load in loads]
        for number in range(rounds):
            for load, result in described:
                where = f"{self._workload.name}, {load.name}, round {number + 1}"
                result["rounds"].append(
                    {name: self._measure(name, load, capacity, f"{where}, {name}").to_json() for name in self._servers}
                )
        return [result for _, result in described]

    def _measure(self, name: str, load: ClosedLoad | OpenLoad, capacity: float, where: str) -> Measurement:
        measurement = self._servers[name].measure(load, _rate(load, capacity), where, self._progress)
        if self._workload.new_images and measurement.embeddings_cached:
            raise CachedEmbeddingError(
                f"{where}: {measurement.embeddings_cached} images were not encoded, although all of them are new"
            )
        return measurement


def _rate(load: ClosedLoad | OpenLoad, capacity: float) -> float:
    return load.percent / 100 * capacity if isinstance(load, OpenLoad) else 0.0


def _description(load: ClosedLoad | OpenLoad, capacity: float) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": load.name, "requests": load.requests, "rounds": []}
    if isinstance(load, ClosedLoad):
        return shape | {"kind": "closed", "callers": load.callers}
    return shape | {"kind": "open", "percent": load.percent, "rate": _rate(load, capacity)}
