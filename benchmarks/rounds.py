"""Runs a workload: both servers up, one under load, the other idle, in alternation."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from serve import TritonServer

from benchmarks.callers import CALLERS, Caller
from benchmarks.comparison import Mismatch, mismatches
from benchmarks.load import Outcome, closed_loop, open_loop, poisson_schedule
from benchmarks.measurement import Measurement, measure
from benchmarks.memory import PeakMemory
from benchmarks.progress import RunProgress
from benchmarks.questions import Question
from benchmarks.reference import Pool
from benchmarks.servers import running
from benchmarks.workloads import ClosedLoad, OpenLoad, ServedWorkload

SIDES = ("ours", "conventional")
# Unmeasured questions before each measurement: allocators, caches and clocks are warm.
_WARM_UP = 4


class CachedEmbeddingError(Exception):
    """Our server answered from its image cache where every picture should have been new."""


class Contest:
    """The two servers of one workload.

    Attributes:
        mismatches: answers that are not the expected ones.
    """

    def __init__(self, workload: ServedWorkload, pool: Pool, seed: int, dtype: str, progress: RunProgress) -> None:
        self.mismatches: list[Mismatch] = []
        self._workload = workload
        self._pool = pool
        self._seed = seed
        self._dtype = dtype
        self._progress = progress
        self._servers: dict[str, TritonServer] = {}
        self._callers: dict[str, Caller] = {}
        self._stamp = 0

    def run(self, checkpoint: Path, logs: Path, rounds: int) -> list[dict[str, Any]]:
        """Measure all loads, the closed ones first.

        Returns:
            Per load its name and shape, and per round and side a measurement's fields.
        """
        with ExitStack() as stack:
            for side in SIDES:
                self._progress.say(f"{self._workload.name}: starting {side}")
                self._servers[side] = stack.enter_context(running(side, checkpoint, logs, self._dtype))
                self._callers[side] = CALLERS[side](self._servers[side].grpc_url)
                stack.callback(self._callers[side].close)
            closed = self._rounds(self._workload.closed, rounds, capacity=0.0)
            capacity = max(
                (median(one["conventional"]["throughput"] for one in load["rounds"]) for load in closed), default=0.0
            )
            return closed + self._rounds(self._workload.open, rounds, capacity)

    def _rounds(self, loads: Sequence[ClosedLoad | OpenLoad], rounds: int, capacity: float) -> list[dict[str, Any]]:
        described = [(load, _description(load, capacity)) for load in loads]
        for number in range(rounds):
            for load, result in described:
                where = f"{self._workload.name}, {load.name}, round {number + 1}"
                result["rounds"].append(
                    {side: self._measure(side, load, capacity, f"{where}, {side}").to_json() for side in SIDES}
                )
        return [result for _, result in described]

    def _measure(self, side: str, load: ClosedLoad | OpenLoad, capacity: float, where: str) -> Measurement:
        self._warm_up(side, load)
        questions = self._fresh(self._pool.questions[: load.questions])
        with (
            self._progress.measurement(where, len(questions)) as advance,
            PeakMemory(self._servers[side].process_id) as memory,
        ):
            outcomes = self._apply(side, load, questions, capacity, advance)
        self.mismatches += mismatches(where, outcomes, self._pool.expected)
        callers = load.callers if isinstance(load, ClosedLoad) else None
        measurement = measure(outcomes, callers, memory.peak_bytes)
        if self._workload.new_pictures and measurement.embeddings_cached:
            raise CachedEmbeddingError(
                f"{where}: {measurement.embeddings_cached} pictures were not encoded, and all of them are new"
            )
        return measurement

    def _warm_up(self, side: str, load: ClosedLoad | OpenLoad) -> None:
        shortest = sorted(self._pool.questions, key=lambda question: question.answer_tokens)[:_WARM_UP]
        callers = min(_WARM_UP, load.callers) if isinstance(load, ClosedLoad) else _WARM_UP
        closed_loop(self._callers[side], self._fresh(shortest), callers, self._workload.num_beams, lambda: None)

    def _apply(
        self,
        side: str,
        load: ClosedLoad | OpenLoad,
        questions: list[Question],
        capacity: float,
        advance: Callable[[], None],
    ) -> list[Outcome]:
        caller, beams = self._callers[side], self._workload.num_beams
        if isinstance(load, ClosedLoad):
            return closed_loop(caller, questions, load.callers, beams, advance)
        due = poisson_schedule(_rate(load, capacity), len(questions), self._seed)
        return open_loop(caller, questions, due, beams, advance)

    def _fresh(self, questions: list[Question]) -> list[Question]:
        """The questions with pictures that no server has seen."""
        self._stamp += 1
        return [question.stamped(f"{self._workload.name} {self._stamp}") for question in questions]


def _rate(load: OpenLoad, capacity: float) -> float:
    return load.percent / 100 * capacity


def _description(load: ClosedLoad | OpenLoad, capacity: float) -> dict[str, Any]:
    shape: dict[str, Any] = {"name": load.name, "questions": load.questions, "rounds": []}
    if isinstance(load, ClosedLoad):
        return shape | {"kind": "closed", "callers": load.callers}
    return shape | {"kind": "open", "percent": load.percent, "rate": _rate(load, capacity)}
