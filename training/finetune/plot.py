"""The plot of a run: training and validation loss, and the measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot_losses(history: Sequence[Mapping[str, Any]], measure: str, path: Path) -> None:
    """Plot the figures that Trainer has logged.

    Args:
        history: Trainer's log: figures by name, with their step.
        measure: drawn on an axis of its own, unless it is the loss.
        path: the PNG file to write.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    losses = figure.subplots()
    losses.set_xlabel("step")
    losses.set_ylabel("loss")
    for name, label in (("loss", "training loss"), ("eval_loss", "validation loss")):
        losses.plot(*_series(history, name), label=label)
    if measure != "loss":
        values = losses.twinx()
        values.set_ylabel(measure)
        values.set_ylim(-0.03, 1.03)  # whole markers at 0 and at 1
        values.plot(*_series(history, f"eval_{measure}"), color="tab:green", marker="o", label=measure)
    figure.legend(loc="outside upper center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _series(history: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = [(entry["step"], entry[name]) for entry in history if name in entry]
    return [step for step, _ in points], [value for _, value in points]
