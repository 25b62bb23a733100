"""Measures one replica on this machine and sizes a fleet accordingly: `make capacity`."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from benchmarks.capacity.fleet_sizing import MIXES, PLANNED_LOAD, Check, capacity, checks, fit, latencies, replicas
from benchmarks.capacity.replica import CLOSED, OPEN, Replica
from benchmarks.capacity.simulation import Costs
from benchmarks.harness import machine
from benchmarks.harness.arguments import add_arguments
from benchmarks.harness.checkpoints import make_checkpoint
from benchmarks.harness.lengths import ANSWER_LENGTHS
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import make_pool
from benchmarks.harness.requests import mixed_groups

_LOADS = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_TASKS = tuple(ANSWER_LENGTHS)


def main() -> None:
    """Measure, or read an earlier run's results, and print the tables."""
    arguments = _arguments()
    console = Console()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.results is None:
        result = _measure(arguments, console)
        file = arguments.output / "capacity.json"
        file.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {file}", highlight=False)
    else:
        file = arguments.results
        result = json.loads(file.read_text())
    costs = fit(result["loads"], result["seed"])
    _print_costs(console, costs)
    _print_checks(console, result["loads"], costs, result["seed"])
    _print_capacity(console, costs, arguments.rate)
    chart = arguments.output / "capacity.png"
    _print_latencies(console, costs, result["loads"], result["seed"], chart)
    console.print(f"wrote {chart}", highlight=False)
    if result["mismatches"]:
        sys.exit(f"benchmark: {len(result['mismatches'])} answers differ from those that generate() gives alone")


def _measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    cache = arguments.output / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    checkpoint = make_checkpoint("mixed", arguments.configs, cache)
    groups = mixed_groups(max(requests for _, requests in (*CLOSED, *OPEN)), arguments.seed)
    with RunProgress(console, (len(CLOSED) + len(OPEN)) * arguments.rounds) as progress:
        with progress.preparation("expected answers", len(groups)) as set_done:
            pool = make_pool(groups, 1, checkpoint, cache, set_done)
        replica = Replica(pool, arguments.seed, progress)

        def fitted_capacity(loads: Sequence[Mapping[str, Any]]) -> float:
            return capacity(fit(loads, arguments.seed), _TASKS)

        loads = replica.measure(checkpoint, arguments.output / "logs", arguments.rounds, fitted_capacity)
    wrong = [vars(mismatch) for mismatch in replica.mismatches]
    return {"seed": arguments.seed, "machine": machine.describe(), "loads": loads, "mismatches": wrong}


def _print_costs(console: Console, costs: Costs) -> None:
    console.print(
        f"an image and its prompt: {costs.encode * 1000:.0f} ms; a decode step: {costs.step * 1000:.1f} ms, and "
        f"{costs.row * 1000:.2f} ms for each row",
        highlight=False,
    )


def _print_checks(console: Console, loads: Sequence[Mapping[str, Any]], costs: Costs, seed: int) -> None:
    table = Table("load", "figure", "measured", "simulated", "ratio", title="the simulation against the measurement")
    for check in checks(loads, costs, seed):
        values = (f"{check.measured:.3g}", f"{check.simulated:.3g}", f"{check.ratio:.2f}")
        table.add_row(check.load, check.figure.replace("_", " "), *values)
    console.print(table)


def _print_capacity(console: Console, costs: Costs, rate: float) -> None:
    table = Table(
        "tasks", "answers/s at most", f"planned, {PLANNED_LOAD:.0%}", f"replicas for {rate:g}/s", title="one replica"
    )
    for name, tasks in MIXES.items():
        full = capacity(costs, tasks)
        table.add_row(name, f"{full:.3g}", f"{PLANNED_LOAD * full:.3g}", str(replicas(rate, full)))
    console.print(table)


def _print_latencies(console: Console, costs: Costs, loads: Sequence[Mapping[str, Any]], seed: int, file: Path) -> None:
    table = Table("load", "arrivals/s", "p50, s", "p95, s", "p99, s", title="fourteen tasks, evenly: latency by load")
    rates = [load * capacity(costs, _TASKS) for load in _LOADS]
    found = [latencies(costs, _TASKS, rate) for rate in rates]
    for load, rate, percentiles in zip(_LOADS, rates, found, strict=True):
        table.add_row(f"{load:.0%}", f"{rate:.3g}", *(f"{percentiles[percent]:.3g}" for percent in (50, 95, 99)))
    console.print(table)
    opened = [load for load in loads if "rate" in load]
    _draw(rates, found, opened, checks(opened, costs, seed), file)


def _draw(
    rates: Sequence[float],
    found: Sequence[Mapping[int, float]],
    opened: Sequence[Mapping[str, Any]],
    simulated: Sequence[Check],
    file: Path,
) -> None:
    """Draw long-run latencies as curves, and the measurements beside a simulation of the same few arrivals."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for percent, color in ((50, "tab:blue"), (95, "tab:orange")):
        name = f"latency_p{percent}"
        axes.plot(rates, [each[percent] for each in found], color=color, label=f"p{percent}, long simulation")
        points = [(load["rate"], one[name]) for load in opened for one in load["rounds"]]
        axes.plot(*zip(*points, strict=True), "o", color=color, label=f"p{percent}, measured, each round")
        same = [check.simulated for check in simulated if check.figure == name]
        axes.plot(
            [load["rate"] for load in opened],
            same,
            "x",
            color="black",
            label="the same arrivals, simulated" if percent == 50 else None,
        )
    axes.set(title="one replica, fourteen tasks evenly", xlabel="arrivals a second", ylabel="latency, seconds")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.25)
    axes.legend()
    figure.savefig(file, dpi=130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description="The capacity of one replica.")
    parser.add_argument("--rate", type=float, default=10.0, help="the fleet's arrivals per second; default %(default)s")
    parser.add_argument("--results", type=Path, help="use an earlier run's capacity.json instead of measuring")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    add_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
