"""Whoever runs compose.yaml sees a notification of an outage: a real server, Prometheus, Alertmanager and receiver."""

import json
import os
import signal
import time
from contextlib import ExitStack
from urllib.parse import quote

import pytest
from florence2_server.tritonserver import TritonServer

from tests.deploy.conftest import DOCKER, debian_tool, run
from tests.operations.notifications import fetch, start
from tests.operations.scaling import SCALE, alerts
from tests.server.observation import seconds_until

START_SECONDS = 180
RELEASE = {"namespace": "vision", "job": "captions-florence2-triton"}
ENGINE = RELEASE | {"instance": "10.0.0.1:8002", "model": "florence2", "engine": "0"}
CLASS = RELEASE | {"model": "florence2", "task_class": "short"}
# What is notified, what then is not, and the labels that both have.
INHIBITIONS = [
    ("Florence2Down", "Florence2ErrorBudgetBurnFast", RELEASE),
    ("Florence2Down", "Florence2ReplicaDown", RELEASE),
    ("Florence2ErrorBudgetBurnFast", "Florence2ErrorBudgetBurnSlow", RELEASE | {"model": "florence2"}),
    ("Florence2LatencyBudgetBurnFast", "Florence2LatencyBudgetBurnSlow", CLASS),
    ("Florence2QueueFull", "Florence2QueueGrowing", RELEASE | {"model": "florence2"}),
    ("Florence2EngineDown", "Florence2EngineRestarting", ENGINE),
]


@pytest.fixture(scope="module")
def server(start_server):
    return start_server()


@pytest.fixture(scope="module")
def monitoring(server, tmp_path_factory):
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("monitoring"), server.ports.metrics)


def test_the_configuration_is_valid():
    run(debian_tool("amtool", "prometheus-alertmanager"), "check-config", DOCKER / "alertmanager" / "alertmanager.yml")


def test_a_release_that_is_down_is_notified_and_so_is_its_return(server, monitoring, figure, tmp_path):
    def notified(status: str) -> list[str]:
        return [line for line in monitoring.notifications() if f" {status} critical Florence2Down " in line]

    query = f"{monitoring.prometheus}/api/v1/query?query={quote('florence2_info')}"
    seconds_until(lambda: json.loads(fetch(query))["data"]["result"])
    began = time.monotonic()
    os.kill(server.process_id, signal.SIGKILL)
    seconds_until(lambda: notified("FIRING"))
    figure("O2: seconds from a release's outage to its notification", (time.monotonic() - began) * SCALE)
    (line,) = notified("FIRING")
    assert "job=florence2" in line
    assert line.endswith(alerts()["Florence2Down"]["annotations"]["runbook_url"])
    with (tmp_path / "log.txt").open("wb") as log, TritonServer(server.ports, log=log):
        seconds_until(lambda: notified("RESOLVED"), START_SECONDS)
    assert monitoring.log.read_text().splitlines() == monitoring.notifications()[::-1]


@pytest.mark.parametrize(("critical", "other", "labels"), INHIBITIONS)
def test_an_alert_that_says_less_is_not_notified(monitoring, critical, other, labels):
    labels = labels | {"namespace": f"{critical}-{other}"}
    elsewhere = labels | {"job": "another-florence2-triton"}
    posted = [(critical, labels), (other, labels), (other, elsewhere)]
    body = [{"labels": each | {"alertname": name, "severity": "test"}} for name, each in posted]
    api = f"{monitoring.alertmanager}/api/v2/alerts"
    fetch(api, json.dumps(body).encode())

    def states() -> list[str]:
        found = [(each["labels"], each["status"]["state"]) for each in json.loads(fetch(api))]
        wanted = [each["labels"] for each in body]
        return [state for one in wanted for labels_, state in found if labels_ == one]

    seconds_until(lambda: "unprocessed" not in states())
    assert states() == ["active", "suppressed", "active"]


def test_the_inhibitions_are_of_existing_alerts():
    assert {name for *pair, _ in INHIBITIONS for name in pair} <= set(alerts())
    assert "Florence2Down" in alerts()
