"""What Helm says after an installation: where alerts lead, and what to do when the release is removed."""

import re

import pytest

from tests.deploy.conftest import DOCKER
from tests.deploy.kubernetes.cases import CASES, CHART, NAME, NAMESPACE, PINNED, Object, merged
from tests.deploy.test_monitoring import ALERTS, RUNBOOK

pytestmark = pytest.mark.deploy

HINT = "set prometheusRule.runbookUrl to yours"


def notes(values: Object) -> str:
    """The notes of a release."""
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(merged(PINNED, values), name=NAME, namespace=NAMESPACE)
    return rendered["florence2-triton/templates/NOTES.txt"]


def test_they_say_where_alerts_lead():
    assert f"the runbook at {RUNBOOK}.\n" in notes(CASES["monitoring"])
    assert HINT in notes(CASES["monitoring"])
    elsewhere = notes(CASES["a runbook elsewhere"])
    assert "the runbook at https://example.com/runbook.\n" in elsewhere
    assert HINT not in elsewhere
    assert "runbook" not in notes({})


@pytest.mark.parametrize("name", [None, "ocr"])
def test_they_say_how_to_silence_the_release_once_it_is_removed(render, name):
    """The same command as the runbook, with the labels that the release's metrics have."""
    values = merged(CASES["monitoring"], {"fullnameOverride": name} if name else {})
    command = re.search(r"  (amtool .*\n.*)\n", notes(values) + "\n")[1]
    (endpoint,) = render(values).one("ServiceMonitor")["spec"]["endpoints"]
    assert f"alertname=Florence2Down namespace={NAMESPACE} job={endpoint['relabelings'][0]['replacement']}" in command
    assert "Florence2Down" in ALERTS
    flags = set(re.findall(r"--(?!alertmanager)[\w-]+=\S+", command))
    assert flags
    assert flags <= set(re.findall(r"--[\w-]+=\S+", (DOCKER / "RUNBOOK.md").read_text()))
    assert "amtool" not in notes({})


def test_they_say_where_the_web_server_is_and_who_may_use_it():
    address = f"http://{NAME}-florence2-triton-web.{NAMESPACE}.svc.cluster.local:8080\n"
    assert address in notes(CASES["web"])
    assert "It requires no API keys" in notes(CASES["web"])
    assert "API keys" not in notes(CASES["web, all values"])
    assert "Through the gateway: page.example.com\n" in notes(CASES["web, nothing else reachable"])
    assert "web server" not in notes({})


def test_no_line_is_empty_twice():
    for case, values in CASES.items():
        assert "\n\n\n" not in notes(values), case
