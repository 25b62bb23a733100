"""The targets, and the figures measured for them. A missed target is reported as missed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.spread import Spread, ratios
from benchmarks.kernels import adapters


@dataclass(frozen=True)
class Target:
    """A bound on a figure.

    Attributes:
        what: the target in words.
        workload: the workload that measures it, together with `load`.
        figure: the field of a measurement.
        bound: on the ratio of ours to `against`; in seconds if `against` is None.
        at_least: whether the bound is a minimum.
    """

    what: str
    workload: str
    load: str
    figure: str
    bound: float
    at_least: bool
    against: str | None = "conventional"

    def measured(self, workloads: Mapping[str, Any]) -> Spread | None:
        """The figure over the rounds of a run; None if it was not measured."""
        loads = workloads.get(self.workload, {}).get("loads", [])
        rounds = next((load["rounds"] for load in loads if load["name"] == self.load), None)
        if not rounds:
            return None
        ours = values(rounds, "ours", self.figure)
        if self.against is None:
            return Spread.of(ours)
        return ratios(ours, values(rounds, self.against, self.figure))

    def is_met(self, measured: Spread) -> bool:
        """Whether the median over the rounds meets the bound."""
        return measured.median >= self.bound if self.at_least else measured.median <= self.bound


TARGETS = (
    Target("mixed, 16 callers: throughput", "mixed", "16 callers", "throughput", 4.0, at_least=True),
    Target(
        "mixed, open loop at 80 %: p95 of short tasks",
        "mixed",
        "80 % of capacity",
        "short_latency_p95",
        0.1,
        at_least=False,
    ),
    Target("beams, 16 callers: throughput", "beams", "16 callers", "throughput", 10.0, at_least=True),
    Target("album: throughput", "album", "8 callers", "throughput", 3.5, at_least=True),
    Target("single, greedy: latency", "single", "greedy", "latency_mean", 0.95, at_least=False, against="bare"),
    Target("single, greedy: decoding", "single", "greedy", "decode_mean", 0.8, at_least=False, against="bare"),
    Target(
        "single, three beams: latency", "single", "three beams", "latency_mean", 0.95, at_least=False, against="bare"
    ),
    Target(
        "single, three beams: decoding", "single", "three beams", "decode_mean", 0.65, at_least=False, against="bare"
    ),
    Target("one image's encoding", "encoding", "image", "seconds", 0.85, at_least=False, against="transformers"),
    Target("decode step of one row", "decode step", "one row", "seconds", 1.3, at_least=False, against="reading"),
    *(
        Target(f"adapters: {load}", "adapters", load, "seconds", adapters.BOUND, at_least=False, against="base")
        for load in adapters.BOUNDED
    ),
    Target("loading", "loading", "base", "seconds", 1.5, at_least=False, against="from_pretrained"),
    Target("overhead: p50, seconds", "overhead", "one token", "latency_p50", 0.005, at_least=False, against=None),
)


def values(rounds: Sequence[Mapping[str, Any]], side: str, figure: str) -> list[float]:
    """A figure of one side, one value per round."""
    return [one[side][figure] for one in rounds]


def verdicts(workloads: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every target with its measured figure, for tables and JSON."""
    found = []
    for target in TARGETS:
        measured = target.measured(workloads)
        found.append(
            {
                "target": target.what,
                "bound": target.bound,
                "at_least": target.at_least,
                "measured": None if measured is None else vars(measured),
                "met": None if measured is None else target.is_met(measured),
            }
        )
    return found
