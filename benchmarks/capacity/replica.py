"""Measures one replica of ours alone, up to its own capacity: what a fleet is sized by."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.callers import CALLERS, Caller
from benchmarks.comparison import Mismatch, mismatches
from benchmarks.device import EXACT_DTYPE
from benchmarks.load import closed_loop, open_loop, poisson_schedule
from benchmarks.measurement import percentile
from benchmarks.progress import RunProgress
from benchmarks.questions import Question
from benchmarks.reference import Pool
from benchmarks.servers import running

# Callers of each closed loop, and how many questions they ask between them.
CLOSED = ((1, 7), (4, 14), (16, 48))
# Percent of the replica's own capacity at which arrivals come, and how many.
OPEN = ((50, 48), (70, 48), (90, 48))
_WARM_UP = 4


class Replica:
    """Our server under one load after another; every answer is compared.

    Attributes:
        mismatches: answers that are not the expected ones.
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
        """Closed loops first; `capacity` makes of them the answers a second to which the open ones are set.

        Returns:
            Per load its shape, and per round its figures, in seconds and answers a second.
        """
        with ExitStack() as stack:
            server = stack.enter_context(running("ours", checkpoint, logs, EXACT_DTYPE))
            caller = CALLERS["ours"](server.grpc_url)
            stack.callback(caller.close)
            closed = [_shape(f"{callers} callers", questions, callers=callers) for callers, questions in CLOSED]
            self._rounds(caller, closed, rounds)
            whole = capacity(closed)
            opened = [
                _shape(f"{percent} % of capacity", questions, percent=percent, rate=percent / 100 * whole)
                for percent, questions in OPEN
            ]
            self._rounds(caller, opened, rounds)
        return closed + opened

    def _rounds(self, caller: Caller, loads: Sequence[dict[str, Any]], rounds: int) -> None:
        for number in range(rounds):
            for load in loads:
                load["rounds"].append(self._measure(caller, load, f"{load['name']}, round {number + 1}"))

    def _measure(self, caller: Caller, load: Mapping[str, Any], where: str) -> dict[str, float]:
        shortest = sorted(self._pool.questions, key=lambda question: question.answer_tokens)[:_WARM_UP]
        closed_loop(caller, self._fresh(shortest), 1, 1, lambda: None)
        questions = self._fresh(self._pool.questions[: load["questions"]])
        with self._progress.measurement(where, len(questions)) as advance:
            if "callers" in load:
                outcomes = closed_loop(caller, questions, load["callers"], 1, advance)
            else:
                outcomes = open_loop(caller, questions, arrivals(load, self._seed), 1, advance)
        self.mismatches += mismatches(where, outcomes, self._pool.expected)
        seconds = [outcome.latency for outcome in outcomes]
        return {
            # What a caller waits beside the decoding is the encoding where nobody else is served.
            "encode": median(outcome.latency - (outcome.reply.decode_seconds or 0.0) for outcome in outcomes),
            "token": sum(outcome.reply.decode_seconds or 0.0 for outcome in outcomes)
            / sum(outcome.question.answer_tokens for outcome in outcomes),
            "throughput": len(outcomes) / outcomes[-1].answered,
            "latency_p50": percentile(seconds, 50),
            "latency_p95": percentile(seconds, 95),
        }

    def _fresh(self, questions: list[Question]) -> list[Question]:
        """The questions with pictures that the server has not seen."""
        self._stamp += 1
        return [question.stamped(f"replica {self._stamp}") for question in questions]


def arrivals(load: Mapping[str, Any], seed: int) -> list[float]:
    """When the questions of an open load are due."""
    return poisson_schedule(load["rate"], load["questions"], seed)


def _shape(name: str, questions: int, **shape: float) -> dict[str, Any]:
    return {"name": name, "questions": questions, **shape, "rounds": []}
