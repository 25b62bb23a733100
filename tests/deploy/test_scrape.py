"""A real Prometheus scrapes a loaded server: every series that rules and dashboard use is there."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml
from florence2 import Client
from serve import Ports, TritonServer

from tests.deploy.conftest import DOCKER, debian_tool
from tests.deploy.exported_metrics import OURS, TRITONS
from tests.deploy.test_monitoring import EXPRESSIONS, SUBSTITUTES, dashboard_expressions
from tests.reference import png
from tests.server.looks import seconds_until
from training.sampling import sample_scene
from training.scenes import draw

pytestmark = pytest.mark.deploy

START_SECONDS = 180
SCRAPES = 12
# What only machines with a GPU export.
OF_GPUS = "nv_gpu_"


class Prometheus:
    """A server, asked over its API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict]:
        """The vector that an expression comes to; a scalar is none."""
        url = f"{self._url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A server that has answered questions of several tasks."""
    with (tmp_path_factory.mktemp("server") / "log.txt").open("wb") as log, TritonServer(log=log) as server:
        server.wait_until_ready(START_SECONDS)
        yield server


@pytest.fixture(scope="module")
def prometheus(loaded, tmp_path_factory):
    """Scrapes the server each second, under the project's rules, while it is asked."""
    folder = tmp_path_factory.mktemp("prometheus")
    port = Ports.free().http
    target = {
        "targets": [f"127.0.0.1:{loaded.ports.metrics}"],
        "labels": {"namespace": "default", "pod": "florence2-0"},
    }
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DOCKER / "prometheus" / "rules.yaml")],
        "scrape_configs": [{"job_name": "florence2", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        debian_tool("prometheus", "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            found = Prometheus(port)
            seconds_until(found.is_ready)
            _ask_while_scraped(loaded)
            yield found
        finally:
            process.terminate()
            process.wait(30)


def _ask_while_scraped(server: TritonServer) -> None:
    scene = png(draw(sample_scene(61)))
    until = time.monotonic() + SCRAPES
    with Client(server.grpc_url) as client:

        def ask(method: str) -> None:
            while time.monotonic() < until:
                getattr(client, method)(scene)

        with ThreadPoolExecutor() as callers:
            list(callers.map(ask, ["caption", "detect", "read_text"]))


@pytest.mark.parametrize("name", [name for name in {**OURS, **TRITONS} if not name.startswith(OF_GPUS)])
def test_every_series_is_scraped_with_its_labels(prometheus, name):
    selector = f'{name}{{model="florence2"}}' if name in TRITONS else name
    found = prometheus.query(selector)
    assert found
    labels = ({**OURS, **TRITONS}[name]) - {"version"}
    for series in found:
        assert labels <= set(series["metric"])


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_expression_can_be_evaluated(prometheus, where):
    prometheus.query(EXPRESSIONS[where])


# An empty answer is the right one while nothing is refused, lost or too old.
@pytest.mark.parametrize(
    "title", ["Requests by task", "p95 by task", "Batch occupancy", "Slots in use by replica", "Tokens"]
)
def test_the_panels_that_an_on_call_looks_at_first_show_something(prometheus, title):
    found = {where: expression for where, expression in dashboard_expressions().items() if where.startswith(title)}
    assert found, SUBSTITUTES
    for expression in found.values():
        assert prometheus.query(expression.replace("[1m]", "[10s]"))
