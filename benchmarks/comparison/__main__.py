"""Runs the benchmark: see benchmarks/README.md."""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from serve import ServerError
from transformers.utils import logging

from benchmarks import decode_step, encoding, loading, machine, overhead, single
from benchmarks.arguments import add_arguments
from benchmarks.checkpoints import ConfigsMissingError, make_checkpoint
from benchmarks.comparison import Mismatch
from benchmarks.curves import draw_curves
from benchmarks.device import DTYPES, EXACT_DTYPE
from benchmarks.overhead import NotCachedError
from benchmarks.progress import RunProgress
from benchmarks.questions import Subject, caption_subjects
from benchmarks.reference import Pool, UndecidedError, answer_pool
from benchmarks.report import print_targets, print_workload
from benchmarks.results import Results
from benchmarks.rounds import SIDES, CachedEmbeddingError, Contest
from benchmarks.single import BareGenerateError
from benchmarks.targets import verdicts
from benchmarks.workloads import FULL, QUICK, WORKLOADS, Plan, ServedWorkload

_SHOWN_MISMATCHES = 20


class Benchmark:
    """One run.

    Args:
        plan: how much is measured.
        selected: names of workloads.
        configs: Florence-2-base's tokenizer, processor and configs.
        output: results, logs, and what is cached between runs.
        seed: of everything that is drawn.
        dtype: what both sides compute in.
        console: where tables and progress go.
    """

    def __init__(
        self, plan: Plan, selected: list[str], configs: Path, output: Path, seed: int, dtype: str, console: Console
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
        """Measure what is selected; `results` has each workload as soon as it is measured."""
        with RunProgress(self._console, self._measurements()) as progress:
            for name in self._selected:
                begin, known = time.monotonic(), len(self.mismatches)
                result = self._workload(name, progress)
                result["seconds"] = time.monotonic() - begin
                print_workload(self._console, name, result)
                results.add(name, result, self.mismatches[known:])

    def _measurements(self) -> int:
        count = sum(len(workload.loads) for workload in self._plan.served if workload.name in self._selected)
        count += len(single.SEARCHES) if "single" in self._selected else 0
        count += 1 if "overhead" in self._selected else 0
        kernels = len({"encoding", "decode step", "loading"} & set(self._selected))
        return count * self._plan.rounds * len(SIDES) + kernels

    def _workload(self, name: str, progress: RunProgress) -> dict[str, Any]:
        if name == "single":
            return self._single(progress)
        if name == "encoding":
            with progress.measurement("encoding, without a server", 1) as advance:
                result = encoding.measure(encoding.base_size_model(self._configs), self._plan.repetitions)
                advance()
            return result
        if name == "decode step":
            with progress.measurement("decode step, without a server", 1) as advance:
                loads = decode_step.run(self._configs, self._plan.repetitions)
                advance()
            return {"loads": loads}
        if name == "loading":
            checkpoint = make_checkpoint("base", self._configs, self._cache)
            with progress.measurement("loading, without a server", self._plan.repetitions) as advance:
                return {"loads": loading.run(checkpoint, self._plan.repetitions, advance)}
        if name == "overhead":
            loads = overhead.run(
                self._seed, self._logs, self._dtype, self._plan.round_trips, self._plan.rounds, progress
            )
            return {"loads": loads}
        return self._served(next(workload for workload in self._plan.served if workload.name == name), progress)

    def _served(self, workload: ServedWorkload, progress: RunProgress) -> dict[str, Any]:
        checkpoint = make_checkpoint(workload.checkpoint, self._configs, self._cache)
        subjects = workload.subjects(workload.subject_count, self._seed)
        pool = self._pool(workload.name, subjects, workload.num_beams, checkpoint, progress)
        contest = Contest(workload, pool, self._seed, self._dtype, progress)
        loads = contest.run(checkpoint, self._logs, self._plan.rounds)
        self.mismatches += contest.mismatches
        return {"loads": loads, "replaced": pool.replaced, "num_beams": workload.num_beams}

    def _single(self, progress: RunProgress) -> dict[str, Any]:
        checkpoint = make_checkpoint("base", self._configs, self._cache)
        subjects = caption_subjects(self._plan.captions, self._seed)
        pools = {
            search: self._pool(f"single, {search}", subjects, beams, checkpoint, progress)
            for search, beams in single.SEARCHES.items()
        }
        loads, wrong = single.run(pools, checkpoint, self._logs, self._dtype, self._plan.rounds, progress)
        self.mismatches += wrong
        return {"loads": loads, "replaced": sum(pool.replaced for pool in pools.values())}

    def _pool(
        self, name: str, subjects: list[Subject], num_beams: int, checkpoint: Path, progress: RunProgress
    ) -> Pool:
        with progress.preparation(f"{name}: expected answers", len(subjects)) as set_done:
            return answer_pool(subjects, num_beams, checkpoint, self._cache, set_done)


def main() -> None:
    """The command line."""
    arguments = _arguments()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = replace(plan, rounds=arguments.rounds)
    if arguments.loads:
        plan = replace(plan, served=tuple(workload.only(arguments.loads) for workload in plan.served))
    left_out = {workload.name for workload in FULL.served} - {workload.name for workload in plan.served}
    selected = arguments.workloads or [name for name in WORKLOADS if name not in left_out]
    console = Console()
    dtype = arguments.dtype
    benchmark = Benchmark(plan, selected, arguments.configs, arguments.output, arguments.seed, dtype, console)
    name = ("quick" if arguments.quick else "full") + ("" if dtype == EXACT_DTYPE else f"-{dtype}")
    file = arguments.output / f"{name}.json"
    results = Results(file, name, plan.rounds, arguments.seed, dtype, arguments.add)
    try:
        benchmark.run(results)
    except (
        ConfigsMissingError,
        UndecidedError,
        ServerError,
        BareGenerateError,
        CachedEmbeddingError,
        NotCachedError,
    ) as error:
        sys.exit(f"benchmark: {error}")
    print_targets(console, verdicts(results.workloads))
    console.print(f"wrote {file}", highlight=False)
    if "mixed" in results.workloads:
        picture = file.with_name(f"{name}-mixed.png")
        draw_curves(results.workloads["mixed"], f"mixed: fourteen tasks, {machine.describe()['cores']} cores", picture)
        console.print(f"wrote {picture}", highlight=False)
    if benchmark.mismatches:
        message = f"{len(benchmark.mismatches)} answers are not what generate() gives alone in {EXACT_DTYPE}"
        if dtype != EXACT_DTYPE:
            console.print(message, highlight=False)
            return
        for mismatch in benchmark.mismatches[:_SHOWN_MISMATCHES]:
            console.print(str(mismatch), markup=False)
        sys.exit(f"benchmark: {message}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="This server beside the conventional one."
    )
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, help="default: all of the plan")
    loads = sorted({load.name for workload in FULL.served for load in workload.loads})
    parser.add_argument("--loads", nargs="+", choices=loads, help="default: all of each workload")
    parser.add_argument("--quick", action="store_true", help="two minutes; its figures are too few to be quoted")
    parser.add_argument(
        "--add", action="store_true", help="keep what earlier runs measured; loads measured again are replaced"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default=EXACT_DTYPE,
        help="of both servers and bare generate(); answers have to be equal in float32 alone; default %(default)s",
    )
    parser.add_argument("--rounds", type=int, help=f"default {FULL.rounds}, quick {QUICK.rounds}")
    add_arguments(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
