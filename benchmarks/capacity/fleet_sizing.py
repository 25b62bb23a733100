"""How much one replica holds, and how many replicas a fleet needs.

Closed loops of one replica (`replica.py`) give three costs: what encoding a picture and a prompt takes, what a decode
step takes whatever is in it, and what each row adds. A simulation of the engine's loop with these costs
(`simulation.py`) is held against open loops, which have no part in that, and then tells latencies at other rates and
for other mixes of tasks.
"""

import math
import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from benchmarks.lengths import ALBUM_TASKS, ANSWER_LENGTHS
from benchmarks.load import poisson_schedule
from benchmarks.measurement import SERVED_AT_ONCE, percentile
from benchmarks.questions import mixed_subjects
from benchmarks.replica import arrivals
from benchmarks.simulation import Costs, SimulatedAnswer, closed_loop, open_loop

# How much of a replica's capacity a fleet is planned for: what is left is for bursts, and for a replica that is gone.
PLANNED_LOAD = 0.7
_PARTS = 1000  # of a step, to which a row's share is fitted
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
    """A load's figure as it was measured and as the simulation has it, in seconds or answers a second."""

    load: str
    figure: str
    measured: float
    simulated: float

    @property
    def ratio(self) -> float:
        """Simulated by measured."""
        return self.simulated / self.measured


def fit(loads: Sequence[Mapping[str, Any]], seed: int) -> Costs:
    """The engine's costs, from the closed loops among the loads.

    A caller alone shows what an encoding takes, and what a step of one row; the most callers show how much of that is
    the row's, for with it the simulation answers as many questions a second as were measured.
    """
    alone = next(load for load in loads if load.get("callers") == 1)
    fullest = max((load for load in loads if "callers" in load), key=lambda load: load["callers"])
    encode, token = (_measured(alone, figure) for figure in ("encode", "token"))

    def costs(row: float) -> Costs:
        return Costs(encode, token - row, row)

    def surplus(row: float) -> float:
        return next(check.ratio for check in checks([fullest], costs(row), seed) if check.figure == "throughput") - 1

    # The more of a step is each row's, the slower is the simulation. Outside of this range it is as near as it can be.
    slow_enough = bisect_left(range(_PARTS), 0.0, key=lambda part: -surplus(token * part / _PARTS))
    return costs(token * slow_enough / _PARTS)


def checks(loads: Sequence[Mapping[str, Any]], costs: Costs, seed: int) -> list[Check]:
    """Every load, simulated with the same questions and arrivals."""
    found = []
    for load in loads:
        tokens = [length for subject in mixed_subjects(load["questions"], seed) for _, length in subject.lengths]
        if "callers" in load:
            answers = closed_loop(costs, tokens, load["callers"], SERVED_AT_ONCE)
            figures = {"throughput": len(answers) / answers[-1].answered, **_latencies(answers, 50, 95)}
        else:
            figures = _latencies(open_loop(costs, tokens, arrivals(load, seed), SERVED_AT_ONCE), 50, 95)
        for figure, simulated in figures.items():
            found.append(Check(load["name"], figure, _measured(load, figure), simulated))
    return found


def capacity(costs: Costs, tasks: Sequence[str]) -> float:
    """Answers a second of a replica whose slots are all taken all the time; the tasks are asked equally often."""
    mean_tokens = mean((ANSWER_LENGTHS[task].shortest + ANSWER_LENGTHS[task].longest) / 2 for task in tasks)
    return 1 / (costs.encode + mean_tokens * (costs.step / SERVED_AT_ONCE + costs.row))


def latencies(costs: Costs, tasks: Sequence[str], rate: float) -> dict[int, float]:
    """Simulated seconds at so many arrivals a second, by percentile: 50, 95, 99."""
    generator = random.Random(1)  # noqa: S311 - seeded on purpose
    tokens = [ANSWER_LENGTHS[generator.choice(tasks)].sample(generator) for _ in range(_SIMULATED_ARRIVALS)]
    answers = open_loop(costs, tokens, poisson_schedule(rate, len(tokens), seed=2), SERVED_AT_ONCE)
    return {percent: percentile([answer.latency for answer in answers], percent) for percent in (50, 95, 99)}


def replicas(rate: float, of_one: float) -> int:
    """Replicas for so many arrivals a second: the planned load on each, and one more that may be gone."""
    return math.ceil(rate / (PLANNED_LOAD * of_one)) + 1


def _measured(load: Mapping[str, Any], figure: str) -> float:
    return median(one[figure] for one in load["rounds"])


def _latencies(answers: Sequence[SimulatedAnswer], *percents: int) -> dict[str, float]:
    seconds = [answer.latency for answer in answers]
    return {f"latency_p{percent}": percentile(seconds, percent) for percent in percents}
