"""Alerts and dashboard are valid, use existing series, and alerts fire when they should."""

import json
import re

import promql_parser
import pytest
import yaml
from florence2 import TASKS
from florence2_server.stub.objectives import task_class
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.conftest import DOCKER, debian_tool, run
from tests.deploy.exported_metrics import EXPORTED, OURS, TARGET_LABELS

pytestmark = pytest.mark.deploy

PROMETHEUS = DOCKER / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
# The chart replaces it; what follows is the number of the panel, and the anchor of the section.
RUNBOOK = "http://localhost:3000/d/florence2-runbook/florence2-runbook"
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((DOCKER / "grafana" / "florence2.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# Values for Grafana's variables.
SUBSTITUTES = {"$__rate_interval": "1m", "$namespace": ".*", "$job": ".*", "$model": ".*", "$instance": ".*"}

# Fields that Grafana reads but its published schema omits.
UNPUBLISHED = re.compile(
    r"/templating/list/\d+/definition|/annotations/list/\d+/(titleFormat|textFormat|tagKeys|step)"
    r"|/panels/\d+/options/tooltip/mode"
)


def dashboard_expressions() -> dict[str, str]:
    """Return every expression of the dashboard as Prometheus receives it."""
    found = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])[1]
    found |= {each["name"]: each["expr"] for each in DASHBOARD["annotations"]["list"]}
    for name, value in SUBSTITUTES.items():
        found = {where: expression.replace(name, value) for where, expression in found.items()}
    return found


EXPRESSIONS = {
    **{f"dashboard: {name}": expression for name, expression in dashboard_expressions().items()},
    **{f"rules: {rule.get('alert') or rule['record']}": rule["expr"] for rule in RULES},
}


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return the series selectors of an expression."""
    found = []

    def keep(node):
        # The selector inside a range is not a node of the tree.
        node = node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), keep)
    return found


def test_the_rules_are_valid():
    promtool = debian_tool("promtool", "prometheus")
    assert f"{len(RULES)} rules found" in run(promtool, "check", "rules", PROMETHEUS / "rules.yaml")


def test_the_configuration_is_valid():
    run(debian_tool("promtool", "prometheus"), "check", "config", PROMETHEUS / "prometheus.yml")


def test_each_alert_fires_when_it_should_and_only_then():
    """The series were recorded from live servers (`make record-alerts`)."""
    run(debian_tool("promtool", "prometheus"), "test", "rules", "rules_test.yaml", cwd=PROMETHEUS)
    fires, silent = set(), set()
    for test in yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]:
        for case in test["promql_expr_test"]:
            name = re.search(r'alertname="(\w+)"', case["expr"])[1]
            (fires if case.get("exp_samples") else silent).add(name)
    assert fires == silent == set(ALERTS)


def test_prometheus_accepts_every_expression_of_the_dashboard(tmp_path):
    rules = [{"record": f"r{number}", "expr": expr} for number, expr in enumerate(dashboard_expressions().values())]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(debian_tool("promtool", "prometheus"), "check", "rules", file)


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_series_exists_with_the_labels_that_are_queried(where):
    found = selectors(EXPRESSIONS[where])
    assert found
    for selector in found:
        queried = {matcher.name for matcher in selector.matchers.matchers}
        if selector.name in RECORDED:
            assert queried <= {"namespace", "job", "model", "task_class"}, "labels that the recording rules keep"
        else:
            assert selector.name in EXPORTED
            assert queried - TARGET_LABELS <= EXPORTED[selector.name]


def test_the_dashboard_shows_every_metric_of_this_server():
    shown = {each.name for expression in EXPRESSIONS.values() for each in selectors(expression)}
    assert {name for name in OURS if not name.endswith(("_sum", "_count"))} <= shown


def test_every_recording_rule_is_used():
    used = {each.name for expression in EXPRESSIONS.values() for each in selectors(expression)}
    assert set(RECORDED) <= used


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_severity_and_an_address_in_the_runbook(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    number = list(ALERTS).index(name) + 1
    assert alert["annotations"]["runbook_url"] == f"{RUNBOOK}?viewPanel={number}#{name.lower()}"


def test_alerts_that_page_are_those_for_what_callers_suffer():
    assert {name for name, alert in ALERTS.items() if alert["labels"]["severity"] == "critical"} == {
        *("Florence2ErrorBudgetBurnFast", "Florence2LatencyBudgetBurnFast", "Florence2DeadlineStorm", "Florence2Down"),
        *("Florence2EngineDown", "Florence2NoAnswers", "Florence2QueueFull"),
    }


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_section_in_the_runbook(name):
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", (DOCKER / "RUNBOOK.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    assert all(part in section[1] for part in ("**Means**", "**Look at**", "**Do**"))


def test_the_runbook_names_existing_alerts_and_panels():
    runbook = (DOCKER / "RUNBOOK.md").read_text()
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == list(ALERTS)
    titles = [panel["title"] for panel in PANELS]
    for looked_at in re.findall(r"\*\*Look at\*\*: (.*?)\n\n", runbook, re.DOTALL):
        for quoted in re.findall(r'"([A-Z][^"]*)"', looked_at.replace("\n", " ")):
            assert any(title.startswith(quoted) for title in titles), quoted


def test_every_field_of_the_dashboard_is_in_grafanas_schema():
    assert lost_fields(DASHBOARD) == []


def lost_fields(dashboard: dict) -> list[str]:
    """Return the paths of all fields of a dashboard that Grafana's published schema does not know."""
    register_default_plugins()
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    return [path for path in missing(dashboard, known) if not UNPUBLISHED.fullmatch(path)]


def missing(given, known, path=""):
    """Yield the paths of everything in `given` that differs in `known`."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name in given:
            yield from missing(given[name], known[name], f"{path}/{name}") if name in known else (f"{path}/{name}",)
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for index, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from missing(one, other, f"{path}/{index}")
    elif given != known:
        yield path


def test_every_panel_queries_the_selected_prometheus_about_the_selected_replicas():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            for selector in selectors(target["expr"].replace("$__rate_interval", "1m")):
                chosen = {matcher.value for matcher in selector.matchers.matchers}
                variables = {"$namespace", "$job"} | ({"$model", "$instance"} if selector.name in OURS else set())
                assert selector.name == "ALERTS" or variables <= chosen, panel["title"]


def test_the_classes_of_tasks_are_those_of_the_objectives():
    (panel,) = [panel for panel in PANELS if panel["title"] == "p95 against the objective"]
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "1m")
        matchers = {each.name: each for found in selectors(expression) for each in found.matchers.matchers}
        chosen, class_ = matchers["task"], matchers["task_class"].value
        is_other = chosen.op == promql_parser.MatchOp.NotRe
        tasks = [task.name for task in TASKS] + ["caption_grounding", "region_analysis", "task_list"]
        matched = {task for task in tasks if (re.fullmatch(chosen.value, task) is None) == is_other}
        assert matched == {task for task in tasks if task_class(task) == class_}


def test_panels_do_not_overlap():
    covered: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert covered.setdefault((x, y), panel["title"]) == panel["title"]
