"""Writes docker/prometheus/rules_test.yaml, promtool's tests of the alerts, from a run of real servers.

`make record-alerts` provokes all outages of `outages.py` and writes down the series that the rules use, as Prometheus
scraped them. Times are multiplied by the constant that the run divided them by, so promtool tests the rules as they are
shipped. Run it again when the server's metrics or the rules change.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.operations.outages import Outage, Run, is_of, run_all
from tests.operations.prometheus import Series
from tests.operations.releases import HEALTHY
from tests.operations.scaling import RULES_FILE, SCALE, SCRAPE_SECONDS, alerts

TEST_FILE = RULES_FILE.with_name("rules_test.yaml")
HEADER = """\
# promtool test rules rules_test.yaml: each alert in a case in which it fires and in one in which it does not.
# Written by `make record-alerts`. The series are what Prometheus scraped from real servers, in outages that were
# provoked with all durations divided by {scale}; times are multiplied by {scale} again. Nothing here is edited by hand.
"""
STEP = SCRAPE_SECONDS / SCALE
STALE, MISSING = "stale", "_"
LONGEST_GAP = 2  # cells without a sample; a target that is gone longer has stale series
SHORTEST_RUN = 3
MARGIN = 8  # cells
EARLY = 4  # cells before an alert fires, at which it is still silent
PAUSE_SECONDS = 3 * STEP
# Its value is the path of a folder of the machine on which the recording was made.
PATH_LABEL = "checkpoint"


def write(run: Run, file: Path) -> None:
    """Write promtool's tests."""
    tests = [*_tests_of_releases(run), _test_of_an_empty_prometheus(run)]
    content = {
        "rule_files": [RULES_FILE.name],
        "evaluation_interval": f"{SCRAPE_SECONDS}s",
        # Without it promtool evaluates groups in any order, and alerts may read older values of the recording rules.
        "group_eval_order": [group["name"] for group in yaml.safe_load(RULES_FILE.read_text())["groups"]],
        "tests": tests,
    }
    text = yaml.safe_dump(content, sort_keys=False, width=116, allow_unicode=True)
    file.write_text(HEADER.format(scale=SCALE) + "\n" + text)


@dataclass(frozen=True)
class Grid:
    """The times at which promtool has samples, `STEP` apart in the run.

    Attributes:
        began: Unix time of the first one.
        cells: their number.
    """

    began: float
    cells: int

    def cell(self, time: float) -> int:
        """The last cell at or before a time."""
        return max(0, min(self.cells - 1, int((time - self.began) / STEP)))

    def values(self, series: Series) -> list[str]:
        """A series on the grid. A target is scraped at its own phase, which the grid's cells begin with."""
        values = [MISSING] * self.cells
        # Half a cell later, so that a scrape that is a little early or late stays in its cell.
        phase = (series.samples[len(series.samples) // 2][0] - self.began) % STEP
        for time, value in series.samples:
            cell = round((time - self.began - phase) / STEP)
            if 0 <= cell < self.cells:
                values[cell] = f"{value:.15g}"
        return _with_stale_markers(values)


def _with_stale_markers(values: list[str]) -> list[str]:
    """Mark the first missing value of each longer gap as stale, as Prometheus does when a target is gone."""
    marked, missing, seen = list(values), 0, False
    for cell, value in enumerate(values):
        missing = missing + 1 if value == MISSING else 0
        seen = seen or value != MISSING
        if seen and missing == LONGEST_GAP + 1:
            marked[cell - LONGEST_GAP] = STALE
    return marked


def notation(values: list[str]) -> str:
    """Write values in promtool's notation, with run lengths."""
    items, cell = [], 0
    while cell < len(values):
        item, length = _item(values[cell:])
        items.append(item)
        cell += length
    return " ".join(items)


def _item(values: list[str]) -> tuple[str, int]:
    """The first item of promtool's notation, and how many values it stands for."""
    first = values[0]
    if first == STALE:
        return first, 1
    if first == MISSING:
        length = next((cell for cell, value in enumerate(values) if value != MISSING), len(values))
        return f"_x{length}", length
    length, step = _progression(values)
    if length < SHORTEST_RUN:
        return first, 1
    change = f"{'+' if step > 0 else '-'}{abs(step)}" if step else ""
    return f"{first}{change}x{length - 1}", length


def _progression(values: list[str]) -> tuple[int, int]:
    """The length and the step of the arithmetic progression with which values begin, if they are whole numbers."""
    numbers = []
    for value in values:
        if value in (STALE, MISSING) or not value.lstrip("-").isdigit():
            break
        numbers.append(int(value))
        if len(numbers) >= SHORTEST_RUN and numbers[-1] - numbers[-2] != numbers[1] - numbers[0]:
            return len(numbers) - 1, numbers[1] - numbers[0]
    return len(numbers), numbers[1] - numbers[0] if len(numbers) > 1 else 0


def identity(labels: dict[str, str]) -> str:
    """A series's name and labels, without what belongs to the machine of the recording."""
    shown = {name: value for name, value in sorted(labels.items()) if name != "__name__"}
    if PATH_LABEL in shown:
        shown[PATH_LABEL] = Path(shown[PATH_LABEL]).name
    return labels["__name__"] + "{" + ", ".join(f'{name}="{value}"' for name, value in shown.items()) + "}"


def _tests_of_releases(run: Run) -> list[dict]:
    jobs = sorted({each.labels["job"] for each in run.series})
    return [_test_of_a_release(run, job) for job in jobs]


def _test_of_a_release(run: Run, job: str) -> dict:
    """A release's alerts; beside it, a healthy release is up if the alert is that the release is down."""
    outages = [each for each in run.outages if each.job == job]
    known = [each for each in run.series if each.labels["job"] == job]
    if any(each.alert == "Florence2Down" for each in outages):
        known += _existence(run, HEALTHY)
    grid = _grid(run, min(each.samples[0][0] for each in known))
    cases = [case for outage in outages for case in _cases(run, outage, grid)]
    fired = {each.labels["alertname"] for each in run.alerts if each.labels.get("job") == job}
    cases += [_never_fires(alert, grid) for alert in alerts() if alert not in fired]
    return {
        "name": f"{job}: {', '.join(each.alert for each in outages) or 'no alert'}",
        "interval": f"{SCRAPE_SECONDS}s",
        "input_series": _inputs(known, grid),
        "promql_expr_test": cases,
    }


def _test_of_an_empty_prometheus(run: Run) -> dict:
    """Prometheus from its start, until a release is found."""
    grid = _grid(run, run.began)
    (outage,) = [each for each in run.outages if not each.job]
    resolved = grid.cell(run.firing(outage)[-1]) + MARGIN
    return {
        "name": "a Prometheus that knows no release, until it finds one: Florence2Down",
        "interval": f"{SCRAPE_SECONDS}s",
        "input_series": _inputs(_existence(run, HEALTHY), grid),
        "promql_expr_test": [
            _case(_firing(outage), _just_before(run, outage, grid)),
            _fires(run, outage, grid),
            _case(_firing(outage), resolved),
        ],
    }


def _grid(run: Run, began: float) -> Grid:
    return Grid(began, int((run.ended - began) / STEP))


def _existence(run: Run, job: str) -> list[Series]:
    """The series that show that a release exists."""
    names = ("up", "florence2_info")
    return [each for each in run.series if each.labels["job"] == job and each.labels["__name__"] in names]


def _inputs(series: list[Series], grid: Grid) -> list[dict]:
    found = sorted(((identity(each.labels), notation(grid.values(each))) for each in series), key=lambda each: each[0])
    return [{"series": name, "values": values} for name, values in found]


def _cases(run: Run, outage: Outage, grid: Grid) -> list[dict]:
    """Silent when the outage begins and just before the alert, firing after that, and silent again if it ended."""
    silent = sorted({grid.cell(outage.began), _just_before(run, outage, grid)})
    cases = [*(_case(_firing(outage), cell) for cell in silent), _fires(run, outage, grid)]
    if outage.ended is not None:
        cases.append(_case(_firing(outage), grid.cell(run.firing(outage)[-1]) + MARGIN))
    return cases


def _just_before(run: Run, outage: Outage, grid: Grid) -> int:
    """The cell before an outage's alert in which it is silent, in the run and as promtool evaluates its grid."""
    return max(0, grid.cell(run.firing(outage)[0]) - EARLY)


def _never_fires(alert: str, grid: Grid) -> dict:
    """From the first cell to the last one."""
    expression = f'count_over_time(ALERTS{{alertname="{alert}", alertstate="firing"}}[{grid.cells * SCRAPE_SECONDS}s])'
    return _case(expression, grid.cells - 1)


def _fires(run: Run, outage: Outage, grid: Grid) -> dict:
    begin, end = _longest_episode(run.firing(outage))
    (labels,) = [each.labels for each in run.alerts if is_of(outage, each.labels)]
    return _case(_firing(outage), grid.cell((begin + end) / 2), identity(labels))


def _longest_episode(times: list[float]) -> tuple[float, float]:
    """The first and the last time of the longest span in which an alert was firing without a pause."""
    begins = [0, *(number for number in range(1, len(times)) if times[number] - times[number - 1] > PAUSE_SECONDS)]
    spans = [(times[begin], times[end - 1]) for begin, end in zip(begins, [*begins[1:], len(times)], strict=True)]
    return max(spans, key=lambda span: span[1] - span[0])


def _firing(outage: Outage) -> str:
    labels = {"__name__": "ALERTS", "alertname": outage.alert, "alertstate": "firing", **outage.labels}
    return identity(labels)


def _case(expression: str, cell: int, *expected: str) -> dict:
    case = {"expr": expression, "eval_time": f"{cell * SCRAPE_SECONDS}s"}
    return case | ({"exp_samples": [{"labels": each, "value": 1} for each in expected]} if expected else {})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(run_all(Path(folder)), TEST_FILE)
