"""The tables of a run."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparison.targets import values
from benchmarks.harness.spread import Spread, ratios

_MEBIBYTE = 2**20
# The field of a measurement, its heading and its format.
_FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("throughput", "throughput, answers/s", "{:.3f}".format),
    ("whole_throughput", "with run-out, answers/s", "{:.3f}".format),
    ("tokens_per_second", "tokens/s", "{:.1f}".format),
    ("seconds", "time, s", "{:.4g}".format),
    ("latency_mean", "latency mean, s", "{:.3f}".format),
    ("latency_p50", "latency p50, s", "{:.4g}".format),
    ("latency_p95", "latency p95, s", "{:.4g}".format),
    ("short_latency_p50", "short tasks p50, s", "{:.3f}".format),
    ("short_latency_p95", "short tasks p95, s", "{:.3f}".format),
    ("decode_mean", "decoding mean, s", "{:.3f}".format),
    ("peak_memory", "peak memory, MiB", lambda size: f"{size / _MEBIBYTE:.0f}"),
)


def print_workload(console: Console, name: str, result: Mapping[str, Any]) -> None:
    """Print a workload's table: both sides and their ratio, each with minimum and maximum over the rounds."""
    other = next(side for side in result["loads"][0]["rounds"][0] if side != "ours")
    table = Table(title=f"{name} ({_subtitle(result)})", title_justify="left")
    for heading in ("load", "figure"):
        table.add_column(heading)
    for heading in ("ours", other, "ratio"):
        table.add_column(heading, justify="right")
    for load in result["loads"]:
        _add_load(table, load, other)
    console.print(table)


def _subtitle(result: Mapping[str, Any]) -> str:
    parts = [f"{len(result['loads'][0]['rounds'])} rounds: median, least to greatest"]
    if "replaced" in result:
        parts.append(f"{result['replaced']} images replaced for near ties")
    if "adapter_bytes" in result:
        parts.append(f"an adapter takes {result['adapter_bytes'] / result['tensor_bytes']:.3f} of its tensors' size")
    return "; ".join(parts)


def _add_load(table: Table, load: Mapping[str, Any], other: str) -> None:
    name = load["name"]
    for figure, heading, show in _FIGURES:
        if load["rounds"][0]["ours"].get(figure) is None:
            continue
        ours, theirs = values(load["rounds"], "ours", figure), values(load["rounds"], other, figure)
        cells = [_cell(Spread.of(ours), show), _cell(Spread.of(theirs), show), _cell(ratios(ours, theirs), _ratio)]
        table.add_row(name, heading, *cells)
        name = ""  # only on the first line of a load
    table.add_section()


def _ratio(value: float) -> str:
    return f"{value:.3g}"


def _cell(spread: Spread, show: Callable[[float], str]) -> str:
    if spread.least == spread.greatest:
        return show(spread.median)
    return f"{show(spread.median)} [dim]({show(spread.least)} to {show(spread.greatest)})[/dim]"


def print_targets(console: Console, verdicts: list[dict[str, Any]]) -> None:
    """Print the targets beside the measured figures."""
    table = Table(title="targets (medians over rounds of ours / theirs)", title_justify="left")
    for heading in ("target", "bound", "measured", ""):
        table.add_column(heading)
    for each in verdicts:
        bound = f"{'at least' if each['at_least'] else 'at most'} {each['bound']:g}"
        if each["measured"] is None:
            table.add_row(each["target"], bound, "", "not measured")
            continue
        verdict = "[green]met[/green]" if each["met"] else "[red]missed[/red]"
        table.add_row(each["target"], bound, _cell(Spread(**each["measured"]), _ratio), verdict)
    console.print(table)
