"""A chart of latency against throughput."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter

from benchmarks.comparison.targets import values

_COLORS = {"ours": "tab:blue", "conventional": "tab:orange"}


def draw_curves(workload: Mapping[str, Any], title: str, file: Path) -> None:
    """Draw closed loops by number of callers on the left, open loops by arrival rate on the right.

    Whiskers span the rounds.
    """
    closed = [load for load in workload["loads"] if load["kind"] == "closed"]
    opened = [load for load in workload["loads"] if load["kind"] == "open"]
    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    figure.suptitle(title)
    for side in _COLORS:
        for figure_name, style, what in (("latency_p95", "-", "p95"), ("short_latency_p95", "--", "p95, short tasks")):
            label = f"{side}, {what}"
            _closed_curve(left, closed, side, figure_name, style, label)
            _open_curve(right, opened, side, figure_name, style, label)
    left.set(title="closed loop; numbers are callers", xlabel="answers a second", ylabel="latency, seconds")
    left.set(xscale="log", yscale="log")
    right.set(title="open loop", xlabel="arrivals, % of the conventional server's capacity")
    right.set_xticks([load["percent"] for load in opened])
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter(FormatStrFormatter("%g"))
        axis.set_minor_formatter(FormatStrFormatter("%g") if axis is left.xaxis else NullFormatter())
    for axes in (left, right):
        axes.grid(visible=True, which="both", alpha=0.25)
    left.legend(fontsize="small")
    figure.savefig(file, dpi=130)


def _closed_curve(axes: Axes, loads: list[Mapping[str, Any]], side: str, latency: str, style: str, label: str) -> None:
    points = [(median(values(load["rounds"], side, "throughput")), load) for load in loads]
    _curve(axes, [x for x, _ in points], loads, side, latency, style, label)
    if latency == "latency_p95":
        for x, load in points:
            y = median(values(load["rounds"], side, latency))
            axes.annotate(str(load["callers"]), (x, y), textcoords="offset points", xytext=(5, 5), fontsize="small")


def _open_curve(axes: Axes, loads: list[Mapping[str, Any]], side: str, latency: str, style: str, label: str) -> None:
    _curve(axes, [load["percent"] for load in loads], loads, side, latency, style, label)


def _curve(
    axes: Axes,
    xs: list[float],
    loads: list[Mapping[str, Any]],
    side: str,
    latency: str,
    style: str,
    label: str,
) -> None:
    rounds = [values(load["rounds"], side, latency) for load in loads]
    middles = [median(each) for each in rounds]
    below = [middle - min(each) for middle, each in zip(middles, rounds, strict=True)]
    above = [max(each) - middle for middle, each in zip(middles, rounds, strict=True)]
    axes.errorbar(
        xs,
        middles,
        yerr=[below, above],
        color=_COLORS[side],
        linestyle=style,
        marker="o",
        markerfacecolor=_COLORS[side] if style == "-" else "white",
        capsize=3,
        label=label,
    )
