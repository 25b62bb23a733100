"""Each alert, provoked on real servers, with the rules as they are shipped but for their durations."""

import itertools
import re

import pytest
import yaml
from florence2_server.config import EngineConfig

from tests.operations.outages import Run, run_all
from tests.operations.recording import TEST_FILE, identity, notation
from tests.operations.releases import ENGINES, GONE, HEALTHY, MODEL, OVERLOADED, SECOND_MODEL, SLUGGISH, STUCK
from tests.operations.scaling import SCALE, SCRAPE_SECONDS, alerts, divided, divided_expression, divided_rules

ALERTS = alerts()
MOST = 0.9
# What burns the budget fast also burns it slowly, after a while.
CONSEQUENCES = {(f"Florence2{budget}BudgetBurnSlow", OVERLOADED) for budget in ("Error", "Latency")}
# Unresolved values and errors of Go's templates.
UNRENDERED = re.compile(r"<no value>|<error|%!|\{\{|NaN|\+Inf")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """All outages, side by side."""
    return run_all(tmp_path_factory.mktemp("outages"))


@pytest.mark.parametrize("name", ALERTS)
def test_an_outage_raises_its_alert_and_nothing_does_before(run, name, figure):
    outages = [each for each in run.outages if each.alert == name]
    assert outages
    for outage in outages:
        first = run.firing(outage)[0]
        assert first >= outage.began
        what = " ".join([outage.job, *([outage.labels["model"]] if "model" in outage.labels else [])])
        about = f" ({what})" if len(outages) > 1 and outage.job else ""
        figure(f"O2: {name}{about}: seconds from the outage to the alert", (first - outage.began) * SCALE)


def test_no_other_alert_fires(run):
    fired = {(each.labels["alertname"], each.labels.get("job", "")) for each in run.alerts}
    assert fired - {(each.alert, each.job) for each in run.outages} <= CONSEQUENCES
    assert HEALTHY not in {job for _, job in fired}


def test_a_release_that_is_wholly_down_pages_while_another_is_up(run):
    (healthy,) = [each for each in run.series if each.labels["__name__"] == "up" and each.labels["job"] == HEALTHY]
    down = [each for each in run.outages if each.alert == "Florence2Down" and each.job]
    assert {each.job for each in down} == {STUCK, GONE}
    for outage in down:
        assert run.firing(outage)[-1] > run.ended - 1
        # A scrape of a quarter of a second may fail on a busy machine.
        up = [value for time, value in healthy.samples if outage.began < time < run.ended]
        assert sum(up) > MOST * len(up)


def test_an_engine_that_is_down_pages_beside_another_that_is_up(run):
    """The labels of the alert name it; the other one crashes only later, and the other model's stub after that."""
    down = min((each for each in run.outages if each.alert == "Florence2EngineDown"), key=lambda each: each.began)
    (later,) = [each for each in run.outages if each.alert == "Florence2EngineRestarting"]
    of_another = [
        time
        for each in run.alerts
        if each.labels["alertname"] == down.alert and each.labels["engine"] != down.labels["engine"]
        for time, _ in each.samples
    ]
    assert all(time > later.began for time in of_another)


def test_sums_are_over_the_replicas_and_engines_of_a_model(run):
    """The release of the engines has three for one model, in two replicas, and one for the other model."""
    slots = EngineConfig(checkpoint="any").slots
    assert run.slots[ENGINES, MODEL] == 3 * slots
    assert run.slots[ENGINES, SECOND_MODEL] == slots
    assert run.slots[HEALTHY, MODEL] == slots


def test_a_full_queue_pages_until_it_is_not_full(run, figure):
    (full,) = [each for each in run.outages if each.alert == "Florence2QueueFull"]
    times = run.firing(full)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) < 4 * SCRAPE_SECONDS / SCALE
    assert times[-1] >= full.ended
    seconds = (times[-1] - full.ended) * SCALE
    figure("O2: Florence2QueueFull: seconds from the last request to the end of the alert", seconds, at_most=300)


def test_deadlines_below_the_objective_page_although_they_use_up_no_budget(run):
    fired = {each.labels["alertname"] for each in run.alerts if each.labels.get("job") == STUCK}
    assert "Florence2DeadlineStorm" in fired
    assert not any("BudgetBurn" in name for name in fired)


def test_a_slow_burn_does_not_page(run):
    fired = {each.labels["alertname"] for each in run.alerts if each.labels.get("job") == SLUGGISH}
    assert not any(name.endswith("BurnFast") for name in fired)


def test_annotations_are_complete_and_lead_to_the_runbook(run):
    assert {name for name, _ in run.annotations} == set(ALERTS)
    for (name, _), annotations in run.annotations.items():
        assert not UNRENDERED.search(" ".join(annotations.values()))
        assert annotations["runbook_url"].endswith(f"#{name.lower()}")


def test_the_recorded_series_are_what_servers_export(run):
    """Else `make record-alerts` is due."""
    tests = yaml.safe_load(TEST_FILE.read_text())["tests"]
    recorded = {_shape(each["series"]) for test in tests for each in test["input_series"]}
    assert recorded == {_shape(identity(each.labels)) for each in run.series}


def _shape(series: str) -> tuple[str, ...]:
    """A series's name, its labels, and the values of those whose values are the server's own."""
    name, labels = series.split("{", 1)
    values = dict(re.findall(r'(\w+)="([^"]*)"', labels))
    own = ("task_class", "verdict", "reason", "model")
    return (name, *(f"{label}={values[label]}" if label in own else label for label in sorted(values)))


def test_all_durations_of_the_rules_are_divided():
    assert divided("1h30m", 60) == "90000ms"
    assert (
        divided_expression("rate(a_1h[5m] offset 1d) > b:rate5m", 60)
        == "rate(a_1h[5000ms] offset 1440000ms) > b:rate5m"
    )
    for group in divided_rules()["groups"]:
        for rule in group["rules"]:
            assert re.findall(r"\[(?!\d+ms\])|offset (?!\d+ms)", rule["expr"]) == []
            assert rule.get("for", "0ms").endswith("ms")


def test_series_are_written_with_run_lengths():
    values = ["_", "_", "0", "0", "0", "2", "4", "6", "7", "stale", "_", "1.5", "3", "2", "1"]
    assert notation(values) == "_x2 0x2 2+2x2 7 stale _x1 1.5 3-1x2"
