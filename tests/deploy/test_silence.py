"""The runbook's command for a release that was removed on purpose silences that release, and no other one."""

import json
import re
import shlex
import subprocess
import urllib.request

import pytest
from florence2_server.tritonserver import Ports

from tests.deploy.conftest import DOCKER, debian_tool, run
from tests.deploy.runbook_dashboard import sections
from tests.deploy.test_monitoring import ALERTS
from tests.server.observation import seconds_until

pytestmark = pytest.mark.deploy

DOWN = "Florence2Down"
COMMAND = re.search(r"^```text\n(amtool silence add .*?)^```$", sections()[1][DOWN], re.MULTILINE | re.DOTALL)[1]
ADDRESS = "127.0.0.1:9093"
REMOVED = {"alertname": DOWN, "namespace": "vision", "job": "captions-florence2-triton"}
STOP_SECONDS = 30


def fetch(url: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


@pytest.fixture
def alertmanager(tmp_path):
    """The address of a real Alertmanager with the configuration of compose."""
    address = f"127.0.0.1:{Ports.free().http}"
    command = [
        debian_tool("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={DOCKER / 'alertmanager' / 'alertmanager.yml'}",
        f"--storage.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    ]
    with (tmp_path / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        seconds_until(lambda: is_ready(address))
        yield address
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def is_ready(address: str) -> bool:
    try:
        return bool(fetch(f"http://{address}/-/ready"))
    except OSError:
        return False


def test_it_silences_one_release(alertmanager):
    others = [
        REMOVED | {"job": "ocr-florence2-triton"},
        REMOVED | {"namespace": "another"},
        REMOVED | {"alertname": "Florence2EngineDown"},
    ]
    posted = [{"labels": labels} for labels in (REMOVED, *others)]
    fetch(f"http://{alertmanager}/api/v2/alerts", json.dumps(posted).encode())
    program, *arguments = shlex.split(COMMAND.replace(ADDRESS, alertmanager).replace("\\\n", ""))
    assert alertmanager in " ".join(arguments)
    run(debian_tool(program, "prometheus-alertmanager"), *arguments)

    def silenced() -> list[dict[str, str]]:
        found = json.loads(fetch(f"http://{alertmanager}/api/v2/alerts"))
        return [each["labels"] for each in found if each["status"]["silencedBy"]]

    seconds_until(silenced)
    assert silenced() == [REMOVED]


def test_it_lasts_as_long_as_prometheus_remembers_the_release():
    remembered = set(re.findall(r"florence2_info\[(\w+)\]", ALERTS[DOWN]["expr"]))
    assert remembered == set(re.findall(r"--duration=(\w+)", COMMAND)) == {"3d"}
