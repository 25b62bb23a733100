"""The project's alerting rules with all durations divided by one constant: a test sees hours pass within minutes."""

import re

import yaml

from tests.deploy.conftest import DOCKER

RULES_FILE = DOCKER / "prometheus" / "rules.yaml"
SCALE = 60

# Of prometheus.yml and of the chart's ServiceMonitor; and Prometheus's default for how long a sample is valid.
SCRAPE_SECONDS = 15
LOOKBACK_SECONDS = 300

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_PART = r"\d+(?:ms|[smhdwy])"
_DURATION = re.compile(rf"(?:{_PART})+")
# Where PromQL has durations: ranges and subqueries, and offsets.
_IN_EXPRESSION = re.compile(rf"(?<=\[)[\d:a-z]+(?=\])|(?<=\boffset )(?:{_PART})+")
_OF_RULES = ("for", "keep_firing_for")
_OF_GROUPS = ("interval", "query_offset")
_SERIES = re.compile(r"(?<![\w:])(?:florence2_\w+|up)\b")


def divided(duration: str, scale: int = SCALE) -> str:
    """Divide a duration in Prometheus's notation, such as `1h30m`."""
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", duration))
    milliseconds = seconds * 1000 / scale
    assert milliseconds == int(milliseconds), f"{duration} / {scale} is no whole number of milliseconds"
    return f"{int(milliseconds)}ms"


def divided_expression(expression: str, scale: int = SCALE) -> str:
    """Divide all durations in an expression."""
    return _IN_EXPRESSION.sub(lambda found: _DURATION.sub(lambda each: divided(each[0], scale), found[0]), expression)


def divided_rules(scale: int = SCALE) -> dict:
    """The project's rules with all durations divided."""
    rules = yaml.safe_load(RULES_FILE.read_text())
    for group in rules["groups"]:
        group |= {name: divided(group[name], scale) for name in _OF_GROUPS if name in group}
        for rule in group["rules"]:
            rule |= {name: divided(rule[name], scale) for name in _OF_RULES if name in rule}
            rule["expr"] = divided_expression(rule["expr"], scale)
    return rules


def alerts() -> dict[str, dict]:
    """The project's alerts, by name."""
    groups = yaml.safe_load(RULES_FILE.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def selected_names() -> set[str]:
    """The names of all scraped series that the rules use."""
    groups = yaml.safe_load(RULES_FILE.read_text())["groups"]
    return {name for group in groups for rule in group["rules"] for name in _SERIES.findall(rule["expr"])}
