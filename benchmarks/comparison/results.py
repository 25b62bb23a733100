"""The results file, rewritten after each workload so that an interrupted run keeps what it has measured."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.comparison.targets import verdicts
from benchmarks.harness import machine
from benchmarks.harness.device import EXACT_DTYPE
from benchmarks.harness.mismatches import Mismatch


class Results:
    """The results of one run, or of several merged load by load.

    Args:
        file: the JSON file.
        plan: the plan's name.
        rounds: of this run.
        seed: of this run.
        dtype: of this run.
        add: keep the results in the file, except for loads that are measured again.
    """

    def __init__(self, file: Path, plan: str, rounds: int, seed: int, dtype: str, add: bool) -> None:
        self._file = file
        known = json.loads(file.read_text()) if add and file.exists() else {"runs": [], "workloads": {}}
        self._workloads: dict[str, Any] = known["workloads"]
        self._runs: list[dict[str, Any]] = known["runs"]
        self._run: dict[str, Any] = {"plan": plan, "rounds": rounds, "seed": seed, "dtype": dtype}
        self._run |= {"different_answers": 0, "mismatches": []}
        self._run |= {"began": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine.describe()}
        self._runs.append(self._run)

    @property
    def workloads(self) -> Mapping[str, Any]:
        """The loads of each workload, with every round's figures and the index of the run they are from."""
        return self._workloads

    def add(self, workload: str, result: Mapping[str, Any], mismatches: Sequence[Mismatch]) -> None:
        """Add a workload's result and write the file."""
        new = [{**load, "run": len(self._runs) - 1} for load in result["loads"]]
        names = {load["name"] for load in new}
        earlier = self._workloads.get(workload, {"loads": []})
        kept = [load for load in earlier["loads"] if load["name"] not in names]
        self._workloads[workload] = {**result, "loads": sorted(kept + new, key=_order)}
        self._run["different_answers"] += len(mismatches)
        if self._run["dtype"] == EXACT_DTYPE:  # with other types they are too many to inspect
            self._run["mismatches"] += [vars(mismatch) for mismatch in mismatches]
        report = {"runs": self._runs, "targets": verdicts(self._workloads), "workloads": self._workloads}
        self._file.write_text(json.dumps(report, indent=1) + "\n")


def _order(load: Mapping[str, Any]) -> tuple[bool, int]:
    """Closed loops by callers, then open loops by rate; the loads of other workloads keep their order."""
    return load.get("kind") == "open", load.get("callers", load.get("percent", 0))
