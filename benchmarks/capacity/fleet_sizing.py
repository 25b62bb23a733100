"""From measurements of one replica to its capacity, its latencies, and the size of a fleet.

Closed loops on one replica (`replica.py`) yield three costs: encoding an image with its prompt, a decode step, and each
row in a step. A simulation of the engine's loop with these costs (`simulation.py`) is validated against open loops,
which were not used to fit them, and then predicts latencies at other rates and for other mixes of tasks.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from benchmarks.capacity.replica import arrivals
from benchmarks.capacity.simulation import Costs, SimulatedRequest, closed_loop, open_loop
from benchmarks.harness.lengths import ALBUM_TASKS, ANSWER_LENGTHS
from benchmarks.harness.load import poisson_schedule
from benchmarks.harness.requests import mixed_groups
from benchmarks.harness.servers import SERVED_AT_ONCE
from benchmarks.harness.spread import percentile

# The share of a replica's capacity that a fleet uses; the rest absorbs bursts and the load of a missing replica.
PLANNED_LOAD = 0.7
_PARTS = 1000  # resolution of the fit: a row's cost as a fraction of a step's
MIXES = {
    "fourteen tasks, evenly": tuple(ANSWER_LENGTHS),
    "an album's eight tasks": ALBUM_TASKS,
    "brief captions": ("caption",),
    "object detection": ("object_detection",),
    "text with regions": ("ocr_with_region",),
    "short tasks": tuple(task for task, length in ANSWER_LENGTHS.items() if length.is_short),
}
_SIMULATED_ARRIVALS = 3000


@dataclass(frozen=True)
class Check:
    """A load's figure as measured and as simulated, in seconds or answers per second."""

    load: str
    figure: str
    measured: float
    simulated: float

    @property
    def ratio(self) -> float:
        """Simulated / measured."""
        return self.simulated / self.measured


def fit(loads: Sequence[Mapping[str, Any]], seed: int) -> Costs:
    """Fit the engine's costs to the closed loops among the loads.

    A single caller gives the costs of encoding and of a step with one row. The row's share of the latter is chosen such
    that the simulation reproduces the throughput with the most callers.
    """
    alone = next(load for load in loads if load.get("callers") == 1)
    fullest = max((load for load in loads if "callers" in load), key=lambda load: load["callers"])
    encode, token = (_measured(alone, figure) for figure in ("encode", "token"))

    def costs(row: float) -> Costs:
        return Costs(encode, token - row, row)

    def surplus(row: float) -> float:
        return next(check.ratio for check in checks([fullest], costs(row), seed) if check.figure == "throughput") - 1

    # Throughput falls monotonically with the row's share. If no share fits, the result is the closest one.
    slow_enough = bisect_left(range(_PARTS), 0.0, key=lambda part: -surplus(token * part / _PARTS))
    return costs(token * slow_enough / _PARTS)


def checks(loads: Sequence[Mapping[str, Any]], costs: Costs, seed: int) -> list[Check]:
    """Simulate every load with the same requests and arrivals."""
    found = []
    for load in loads:
        tokens = [length for group in mixed_groups(load["requests"], seed) for _, length in group.lengths]
        if "callers" in load:
            answered = closed_loop(costs, tokens, load["callers"], SERVED_AT_ONCE)
            figures = {"throughput": len(answered) / answered[-1].end, **_latencies(answered, 50, 95)}
        else:
            figures = _latencies(open_loop(costs, tokens, arrivals(load, seed), SERVED_AT_ONCE), 50, 95)
        for figure, simulated in figures.items():
            found.append(Check(load["name"], figure, _measured(load, figure), simulated))
    return found


def capacity(costs: Costs, tasks: Sequence[str]) -> float:
    """Answers per second of a replica whose slots are always full, for tasks in equal shares."""
    mean_tokens = mean((ANSWER_LENGTHS[task].shortest + ANSWER_LENGTHS[task].longest) / 2 for task in tasks)
    return 1 / (costs.encode + mean_tokens * (costs.step / SERVED_AT_ONCE + costs.row))


def latencies(costs: Costs, tasks: Sequence[str], rate: float) -> dict[int, float]:
    """Simulated latencies in seconds at `rate` arrivals per second, by percentile: 50, 95, 99."""
    generator = random.Random(1)  # noqa: S311 - seeded on purpose
    tokens = [ANSWER_LENGTHS[generator.choice(tasks)].sample(generator) for _ in range(_SIMULATED_ARRIVALS)]
    answered = open_loop(costs, tokens, poisson_schedule(rate, len(tokens), seed=2), SERVED_AT_ONCE)
    return {percent: percentile([each.latency for each in answered], percent) for percent in (50, 95, 99)}


def replicas(rate: float, capacity_of_one: float) -> int:
    """Replicas for `rate` arrivals per second: each at the planned load, plus one that may be missing."""
    return math.ceil(rate / (PLANNED_LOAD * capacity_of_one)) + 1


def _measured(load: Mapping[str, Any], figure: str) -> float:
    values: list[float] = [each[figure] for each in load["rounds"]]
    return median(values)


def _latencies(answered: Sequence[SimulatedRequest], *percents: int) -> dict[str, float]:
    seconds = [each.latency for each in answered]
    return {f"latency_p{percent}": percentile(seconds, percent) for percent in percents}
