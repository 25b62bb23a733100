"""How much one replica holds, and how many a fleet needs: `python -m benchmarks.capacity`.

Three costs are fitted to the closed loops that `make bench` measured: what encoding a picture and a prompt takes, what
a decode step takes whatever is in it, and what each row adds. A simulation of the engine's loop with these costs is
held against the open loops, which the fit has not seen, and then tells latencies at other rates and for other mixes of
tasks. benchmarks/CAPACITY.md has its tables.
"""

import argparse
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize

from benchmarks.lengths import ALBUM_TASKS, ANSWER_LENGTHS
from benchmarks.load import poisson_schedule
from benchmarks.measurement import SERVED_AT_ONCE
from benchmarks.questions import mixed_subjects
from benchmarks.simulation import Costs, closed_loop, open_loop

_RESULTS = Path(__file__).resolve().parent / "results" / "full.json"
# How much of a replica's capacity a fleet is planned for: what is left is for bursts, and for a replica that is gone.
PLANNED_LOAD = 0.7
_LOADS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9)
_SIMULATED_ARRIVALS = 3000
_MIXES = {
    "fourteen tasks, evenly": tuple(ANSWER_LENGTHS),
    "album: eight tasks of each picture": ALBUM_TASKS,
    "brief captions": ("caption",),
    "object detection": ("object_detection",),
    "text with regions": ("ocr_with_region",),
    "short tasks": tuple(task for task, length in ANSWER_LENGTHS.items() if length.is_short),
}


@dataclass(frozen=True)
class Check:
    """A load as it was measured, and as the simulation has it. Seconds; throughput in answers a second."""

    name: str
    figure: str
    measured: float
    simulated: float

    @property
    def ratio(self) -> float:
        """Simulated by measured."""
        return self.simulated / self.measured


def fit(loads: Sequence[Mapping[str, Any]], seed: int) -> Costs:
    """The costs with which the simulation of the closed loops is nearest to what was measured."""
    closed = [load for load in loads if load["kind"] == "closed"]

    def distance(logarithms: Sequence[float]) -> float:
        costs = Costs(*map(math.exp, logarithms))
        return sum(math.log(check.ratio) ** 2 for load in closed for check in _closed_checks(load, costs, seed))

    found = minimize(
        distance, np.log([0.2, 0.05, 0.005]), method="Nelder-Mead", options={"maxiter": 300, "xatol": 0.01}
    )
    return Costs(*map(math.exp, found.x))


def checks(loads: Sequence[Mapping[str, Any]], costs: Costs, seed: int) -> list[Check]:
    """Every load of the workload `mixed`, simulated with the same questions and arrivals."""
    found = []
    for load in loads:
        found += (_closed_checks if load["kind"] == "closed" else _open_checks)(load, costs, seed)
    return found


def _closed_checks(load: Mapping[str, Any], costs: Costs, seed: int) -> list[Check]:
    simulated = closed_loop(costs, _answer_tokens(load["questions"], seed), load["callers"], SERVED_AT_ONCE)
    throughput = len(simulated) / max(answer.answered for answer in simulated)
    return [
        Check(load["name"], "answers a second", _measured(load, "whole_throughput"), throughput),
        Check(load["name"], "latency p50", _measured(load, "latency_p50"), median(a.latency for a in simulated)),
    ]


def _open_checks(load: Mapping[str, Any], costs: Costs, seed: int) -> list[Check]:
    due = poisson_schedule(load["rate"], load["questions"], seed)
    latencies = [answer.latency for answer in open_loop(costs, _answer_tokens(len(due), seed), due, SERVED_AT_ONCE)]
    return [
        Check(
            load["name"], f"latency p{percent}", _measured(load, f"latency_p{percent}"), _percentile(latencies, percent)
        )
        for percent in (50, 95)
    ]


def _answer_tokens(questions: int, seed: int) -> list[int]:
    """The lengths of the workload's first answers."""
    return [tokens for subject in mixed_subjects(questions, seed) for _, tokens in subject.lengths]


def _measured(load: Mapping[str, Any], figure: str) -> float:
    return median(one["ours"][figure] for one in load["rounds"])


def _percentile(values: Sequence[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def capacity(costs: Costs, tasks: Sequence[str]) -> float:
    """Answers a second of a replica whose slots are never empty."""
    mean_tokens = mean((ANSWER_LENGTHS[task].shortest + ANSWER_LENGTHS[task].longest) / 2 for task in tasks)
    return 1 / (costs.encode + mean_tokens * (costs.step / SERVED_AT_ONCE + costs.row))


def latencies(costs: Costs, tasks: Sequence[str], rate: float) -> list[float]:
    """Simulated latencies at so many arrivals a second."""
    generator = random.Random(1)  # noqa: S311 - seeded on purpose
    tokens = [ANSWER_LENGTHS[generator.choice(tasks)].sample(generator) for _ in range(_SIMULATED_ARRIVALS)]
    due = poisson_schedule(rate, len(tokens), seed=2)
    return [answer.latency for answer in open_loop(costs, tokens, due, SERVED_AT_ONCE)]


def replicas(rate: float, of_one: float) -> int:
    """Replicas for so many arrivals a second: the planned load on each, and one more that may be gone."""
    return math.ceil(rate / (PLANNED_LOAD * of_one)) + 1


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description="How much one replica holds.")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="of make bench; default %(default)s")
    parser.add_argument("--rate", type=float, default=10.0, help="a fleet's arrivals a second; default %(default)s")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    loads = results["workloads"]["mixed"]["loads"]
    seed = results["runs"][-1]["seed"]
    console = Console()
    costs = fit(loads, seed)
    console.print(
        f"encoding {costs.encode * 1000:.0f} ms, a decode step {costs.step * 1000:.1f} ms and "
        f"{costs.row * 1000:.2f} ms for each row"
    )
    _print_checks(console, checks(loads, costs, seed))
    _print_capacity(console, costs, arguments.rate)
    _print_latencies(console, costs)


def _print_checks(console: Console, found: Sequence[Check]) -> None:
    table = Table("load", "figure", "measured", "simulated", "ratio", title="simulation against measurement")
    for check in found:
        values = (f"{check.measured:.3g}", f"{check.simulated:.3g}", f"{check.ratio:.2f}")
        table.add_row(check.name, check.figure, *values)
    console.print(table)


def _print_capacity(console: Console, costs: Costs, rate: float) -> None:
    heading = f"replicas for {rate:g}/s"
    table = Table("mix", "capacity, answers/s", f"planned ({PLANNED_LOAD:.0%})", heading, title="one replica")
    for name, tasks in _MIXES.items():
        of_one = capacity(costs, tasks)
        table.add_row(name, f"{of_one:.3g}", f"{PLANNED_LOAD * of_one:.3g}", str(replicas(rate, of_one)))
    console.print(table)


def _print_latencies(console: Console, costs: Costs) -> None:
    table = Table("load", "arrivals/s", "p50, s", "p95, s", "p99, s", title="fourteen tasks, evenly: latency by load")
    tasks = tuple(ANSWER_LENGTHS)
    for load in _LOADS:
        rate = load * capacity(costs, tasks)
        found = latencies(costs, tasks, rate)
        percentiles = (f"{_percentile(found, percent):.3g}" for percent in (50, 95, 99))
        table.add_row(f"{load:.0%}", f"{rate:.3g}", *percentiles)
    console.print(table)


if __name__ == "__main__":
    main()
