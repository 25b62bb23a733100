"""What was measured, in a file that is written after each workload: a run that is cut short leaves what it has."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.comparison import Mismatch
from benchmarks.device import EXACT_DTYPE
from benchmarks.targets import verdicts


class Results:
    """The results of one run, or of several that add to each other load by load.

    Args:
        file: where they are kept, as JSON.
        plan: the plan's name.
        rounds: of this run.
        seed: of this run.
        dtype: of this run.
        add: keep what is in the file; a load that is measured again is replaced.
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
        """Per workload its loads, with every round's figures, and of each load the index of its run."""
        return self._workloads

    def add(self, workload: str, result: Mapping[str, Any], mismatches: Sequence[Mismatch]) -> None:
        """Take a workload's result and write the file."""
        new = [{**load, "run": len(self._runs) - 1} for load in result["loads"]]
        names = {load["name"] for load in new}
        earlier = self._workloads.get(workload, {"loads": []})
        kept = [load for load in earlier["loads"] if load["name"] not in names]
        self._workloads[workload] = {**result, "loads": sorted(kept + new, key=_order)}
        self._run["different_answers"] += len(mismatches)
        if self._run["dtype"] == EXACT_DTYPE:  # elsewhere they are too many to be looked at one by one
            self._run["mismatches"] += [vars(mismatch) for mismatch in mismatches]
        report = {"runs": self._runs, "targets": verdicts(self._workloads), "workloads": self._workloads}
        self._file.write_text(json.dumps(report, indent=1) + "\n")


def _order(load: Mapping[str, Any]) -> tuple[bool, int]:
    """Closed loops by their callers, then open ones by their rate; loads of other workloads as they came."""
    return load.get("kind") == "open", load.get("callers", load.get("percent", 0))
