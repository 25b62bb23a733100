"""Runs the comparison: `make bench`, see benchmarks/README.md."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from florence2_server.tritonserver import StartError
from rich.console import Console
from transformers.utils import logging

from benchmarks.comparison import overhead, single_caller
from benchmarks.comparison.curves import draw_curves
from benchmarks.comparison.overhead import NotCachedError
from benchmarks.comparison.report import print_targets, print_workload
from benchmarks.comparison.results import Results
from benchmarks.comparison.sides import SIDES
from benchmarks.comparison.single_caller import BareGenerateError
from benchmarks.comparison.targets import verdicts
from benchmarks.comparison.workload_run import CachedEmbeddingError, WorkloadRun
from benchmarks.comparison.workloads import FULL, QUICK, WORKLOADS, Plan, ServedWorkload
from benchmarks.harness import machine
from benchmarks.harness.arguments import add_arguments
from benchmarks.harness.checkpoints import ConfigsMissingError, make_checkpoint
from benchmarks.harness.device import DTYPES, EXACT_DTYPE
from benchmarks.harness.mismatches import Mismatch
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool, UndecidedError, make_pool
from benchmarks.harness.requests import RequestGroup, caption_groups
from benchmarks.kernels import adapters, decode_step, encoding, loading

_SHOWN_MISMATCHES = 20
_KERNELS = ("encoding", "decode step", "adapters", "loading")
_FAILURES = (
    ConfigsMissingError,
    UndecidedError,
    StartError,
    BareGenerateError,
    CachedEmbeddingError,
    NotCachedError,
    adapters.HarmedError,
)


class Comparison:
    """One run.

    Args:
        plan: how much to measure.
        selected: names of workloads.
        configs: folder with Florence-2-base's tokenizer, processor and configs.
        output: folder for results, logs, and data that is cached between runs.
        seed: of all random choices.
        dtype: data type of both sides.
        console: for tables and progress.

    Attributes:
        mismatches: responses that differ from the expected answers.
    """

    def __init__(
        self, plan: Plan, selected: Sequence[str], configs: Path, output: Path, seed: int, dtype: str, console: Console
    ) -> None:
        self.mismatches: list[Mismatch] = []
        self._plan = plan
        self._selected = selected
        self._configs = configs
        self._cache = output / "cache"
        self._logs = output / "logs"
        self._seed = seed
        self._dtype = dtype
        self._console = console
        self._cache.mkdir(parents=True, exist_ok=True)

    def run(self, results: Results) -> None:
        """Measure the selected workloads, and add each to `results` as soon as it is done."""
        with RunProgress(self._console, self._measurements()) as progress:
            for name in self._selected:
                begin, known = time.monotonic(), len(self.mismatches)
                result = self._workload(name, progress)
                result["seconds"] = time.monotonic() - begin
                print_workload(self._console, name, result)
                results.add(name, result, self.mismatches[known:])

    def _measurements(self) -> int:
        count = sum(len(workload.loads) for workload in self._plan.served if workload.name in self._selected)
        count += len(single_caller.SEARCHES) if "single" in self._selected else 0
        count += 1 if "overhead" in self._selected else 0
        return count * self._plan.rounds * len(SIDES) + len(set(_KERNELS) & set(self._selected))

    def _workload(self, name: str, progress: RunProgress) -> dict[str, Any]:
        if name in _KERNELS:
            return self._kernel(name, progress)
        if name == "single":
            return self._single(progress)
        if name == "overhead":
            plan = self._plan
            loads = overhead.run(self._seed, self._logs, self._dtype, plan.round_trips, plan.rounds, progress)
            return {"loads": loads}
        return self._served(next(workload for workload in self._plan.served if workload.name == name), progress)

    def _kernel(self, name: str, progress: RunProgress) -> dict[str, Any]:
        repetitions = self._plan.repetitions
        checkpoint = make_checkpoint("base", self._configs, self._cache) if name == "loading" else None
        with progress.measurement(f"{name}, without a server", repetitions if checkpoint else 1) as advance:
            if checkpoint:
                return {"loads": loading.run(checkpoint, repetitions, advance)}
            if name == "encoding":
                result = encoding.measure(encoding.base_size_model(self._configs), repetitions)
            elif name == "adapters":
                result = adapters.measure(encoding.base_size_model(self._configs), repetitions)
            else:
                result = {"loads": decode_step.run(self._configs, repetitions)}
            advance()
            return result

    def _served(self, workload: ServedWorkload, progress: RunProgress) -> dict[str, Any]:
        checkpoint = make_checkpoint(workload.checkpoint, self._configs, self._cache)
        groups = workload.groups(workload.group_count, self._seed)
        pool = self._pool(workload.name, groups, workload.num_beams, checkpoint, progress)
        run = WorkloadRun(workload, pool, self._seed, self._dtype, progress)
        loads = run.run(checkpoint, self._logs, self._plan.rounds)
        self.mismatches += run.mismatches
        return {"loads": loads, "replaced": pool.replaced, "num_beams": workload.num_beams}

    def _single(self, progress: RunProgress) -> dict[str, Any]:
        checkpoint = make_checkpoint("base", self._configs, self._cache)
        groups = caption_groups(self._plan.captions, self._seed)
        pools = {
            search: self._pool(f"single, {search}", groups, beams, checkpoint, progress)
            for search, beams in single_caller.SEARCHES.items()
        }
        loads, wrong = single_caller.run(pools, checkpoint, self._logs, self._dtype, self._plan.rounds, progress)
        self.mismatches += wrong
        return {"loads": loads, "replaced": sum(pool.replaced for pool in pools.values())}

    def _pool(
        self, name: str, groups: list[RequestGroup], num_beams: int, checkpoint: Path, progress: RunProgress
    ) -> Pool:
        with progress.preparation(f"{name}: expected answers", len(groups)) as set_done:
            return make_pool(groups, num_beams, checkpoint, self._cache, set_done)


def main() -> None:
    """The command line."""
    arguments = _arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plan = _plan(arguments)
    left_out = {workload.name for workload in FULL.served} - {workload.name for workload in plan.served}
    selected = arguments.workloads or [name for name in WORKLOADS if name not in left_out]
    console, dtype = Console(), arguments.dtype
    comparison = Comparison(plan, selected, arguments.configs, arguments.output, arguments.seed, dtype, console)
    name = ("quick" if arguments.quick else "full") + ("" if dtype == EXACT_DTYPE else f"-{dtype}")
    file = arguments.output / f"{name}.json"
    results = Results(file, name, plan.rounds, arguments.seed, dtype, arguments.add)
    try:
        comparison.run(results)
    except _FAILURES as error:
        sys.exit(f"benchmark: {error}")
    print_targets(console, verdicts(results.workloads))
    console.print(f"wrote {file}", highlight=False)
    if "mixed" in results.workloads:
        chart = file.with_name(f"{name}-mixed.png")
        draw_curves(results.workloads["mixed"], f"mixed: fourteen tasks, {machine.describe()['cores']} cores", chart)
        console.print(f"wrote {chart}", highlight=False)
    _report_mismatches(comparison.mismatches, dtype, console)


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    if arguments.loads:
        plan = replace(plan, served=tuple(workload.only(arguments.loads) for workload in plan.served))
    return plan


def _report_mismatches(mismatches: Sequence[Mismatch], dtype: str, console: Console) -> None:
    """Print mismatches, and fail if the answers had to be equal."""
    if not mismatches:
        return
    message = f"{len(mismatches)} answers differ from those that generate() gives alone in {EXACT_DTYPE}"
    if dtype != EXACT_DTYPE:
        console.print(message, highlight=False)
        return
    for mismatch in mismatches[:_SHOWN_MISMATCHES]:
        console.print(str(mismatch), markup=False)
    sys.exit(f"benchmark: {message}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison", description="This server beside the conventional one."
    )
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, help="default: all of the plan")
    loads = sorted({load.name for workload in FULL.served for load in workload.loads})
    parser.add_argument("--loads", nargs="+", choices=loads, help="default: all of each workload")
    parser.add_argument("--quick", action="store_true", help="two minutes; too few answers to quote")
    parser.add_argument(
        "--add", action="store_true", help="keep the results of earlier runs, except for loads measured again"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default=EXACT_DTYPE,
        help="of both servers and bare generate(); only float32 requires equal answers; default %(default)s",
    )
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}, quick {QUICK.rounds}")
    add_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
