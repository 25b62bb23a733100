"""Alerts and dashboard: valid, about series that exist, and firing when they should."""

import json
import re

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.conftest import DOCKER, debian_tool, run
from tests.deploy.exported_metrics import EXPORTED, OURS, TARGET_LABELS

pytestmark = pytest.mark.deploy

PROMETHEUS = DOCKER / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((DOCKER / "grafana" / "florence2.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# What Grafana puts in the place of its variables.
SUBSTITUTES = {"$__rate_interval": "1m", "$namespace": ".*", "$job": ".*", "$instance": ".*"}

# Fields that Grafana reads and its published schema leaves out.
UNPUBLISHED = re.compile(
    r"/templating/list/\d+/definition|/annotations/list/\d+/(titleFormat|textFormat|tagKeys|step)"
    r"|/panels/\d+/options/tooltip/mode"
)


def dashboard_expressions() -> dict[str, str]:
    """Every expression of the dashboard, as Prometheus gets it."""
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
    """What an expression reads."""
    found = []

    def keep(node):
        # A range's own selector is no node of the tree.
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


def test_each_alert_fires_when_it_should_and_not_when_it_should_not():
    run(debian_tool("promtool", "prometheus"), "test", "rules", "rules_test.yaml", cwd=PROMETHEUS)
    fires, stays = set(), set()
    for test in yaml.safe_load((PROMETHEUS / "rules_test.yaml").read_text())["tests"]:
        targets = {tuple(re.findall(r'(?:job|instance)="[^"]*"', each["series"])) for each in test["input_series"]}
        for case in test["alert_rule_test"]:
            expected = case.get("exp_alerts", [])
            fires |= {case["alertname"]} if expected else set()
            # Among several targets, it must not fire for those that are not expected.
            stays |= {case["alertname"]} if len(expected) < len(targets) else set()
    assert fires == stays == set(ALERTS)


def test_prometheus_accepts_every_expression_of_the_dashboard(tmp_path):
    rules = [{"record": f"r{number}", "expr": expr} for number, expr in enumerate(dashboard_expressions().values())]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(debian_tool("promtool", "prometheus"), "check", "rules", file)


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_series_exists_with_the_labels_that_are_asked_for(where):
    found = selectors(EXPRESSIONS[where])
    assert found
    for selector in found:
        asked = {matcher.name for matcher in selector.matchers.matchers}
        if selector.name in RECORDED:
            assert asked <= {"namespace", "job"}, "what the recording rules keep"
        else:
            assert selector.name in EXPORTED
            assert asked - TARGET_LABELS <= EXPORTED[selector.name]


def test_the_dashboard_shows_every_metric_that_this_server_adds():
    shown = {each.name for expression in EXPRESSIONS.values() for each in selectors(expression)}
    assert {name for name in OURS if not name.endswith(("_sum", "_count"))} <= shown


def test_every_recording_is_used():
    used = {each.name for expression in EXPRESSIONS.values() for each in selectors(expression)}
    assert set(RECORDED) <= used


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_to_do(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docker/RUNBOOK.md#{name.lower()}"
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", (DOCKER / "RUNBOOK.md").read_text(), re.MULTILINE | re.DOTALL)
    assert section is not None
    assert all(part in section[1] for part in ("**Means**", "**Look at**", "**Do**"))


def test_the_runbook_is_about_these_alerts_and_panels():
    runbook = (DOCKER / "RUNBOOK.md").read_text()
    assert re.findall(r"^## (\w+)$", runbook, re.MULTILINE) == list(ALERTS)
    titles = [panel["title"] for panel in PANELS]
    for looked_at in re.findall(r"\*\*Look at\*\*: (.*?)\n\n", runbook, re.DOTALL):
        for quoted in re.findall(r'"([A-Z][^"]*)"', looked_at.replace("\n", " ")):
            assert any(title.startswith(quoted) for title in titles), quoted


def test_grafana_knows_every_field_of_the_dashboard():
    register_default_plugins()
    known = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    lost = [path for path in missing(DASHBOARD, known) if not UNPUBLISHED.fullmatch(path)]
    assert lost == []


def missing(given, known, path=""):
    """Paths of what is in `given` and not the same in `known`."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name in given:
            yield from missing(given[name], known[name], f"{path}/{name}") if name in known else (f"{path}/{name}",)
    elif isinstance(given, list) and isinstance(known, list) and len(given) == len(known):
        for index, (one, other) in enumerate(zip(given, known, strict=True)):
            yield from missing(one, other, f"{path}/{index}")
    elif given != known:
        yield path


def test_every_panel_asks_the_chosen_prometheus_about_the_chosen_replicas():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            for selector in selectors(target["expr"].replace("$__rate_interval", "1m")):
                chosen = {matcher.value for matcher in selector.matchers.matchers}
                assert selector.name == "ALERTS" or {"$namespace", "$job"} <= chosen, panel["title"]


def test_no_panel_covers_another():
    covered: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert covered.setdefault((x, y), panel["title"]) == panel["title"]
