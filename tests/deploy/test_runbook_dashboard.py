"""The runbook travels with an installation: as a dashboard that is in step, to which every alert links."""

import json

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.conftest import DOCKER
from tests.deploy.runbook_dashboard import FILE, UID, rendered, runbook_url, sections
from tests.deploy.test_monitoring import ALERTS, lost_fields

pytestmark = pytest.mark.deploy

PANELS = {panel["id"]: panel for panel in json.loads(FILE.read_text())["panels"]}


def test_the_dashboard_is_in_step_with_the_runbook():
    assert FILE.read_text() == rendered(), "python -m tests.deploy.runbook_dashboard"


def test_every_field_is_in_grafanas_schema():
    assert lost_fields(json.loads(FILE.read_text())) == []


def test_the_chart_has_the_same_file():
    assert (DOCKER / "helm/florence2-triton/files/runbook.json").samefile(FILE)


def test_compose_serves_it():
    grafana = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["grafana"]
    assert "./grafana/runbook.json:/var/lib/florence2/runbook.json:ro" in grafana["volumes"]
    assert "127.0.0.1:3000:3000" in grafana["ports"]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_links_to_the_panel_of_its_section(name):
    url = ALERTS[name]["annotations"]["runbook_url"]
    assert url == runbook_url(name)
    page, _, rest = url.partition("?viewPanel=")
    number, _, anchor = rest.partition("#")
    assert f"/d/{UID}/" in page
    assert PANELS[int(number)]["title"] == name
    assert sections()[1][name] in PANELS[int(number)]["options"]["content"]
    assert f"\n## {name}\n" in (ROOT / "docker/RUNBOOK.md").read_text()
    assert anchor == name.lower()
