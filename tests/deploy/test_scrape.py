"""A real Prometheus scrapes a server under load and gets every series that the rules and the dashboard use."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tritonclient.grpc as triton
import yaml
from florence2 import Client
from florence2.v1 import TaskRequest
from florence2_server.tritonserver import TritonServer

from tests.demo_adapter import save_demo_adapter
from tests.deploy.conftest import DOCKER
from tests.deploy.exported_metrics import DROPPED, HISTOGRAMS, LABELS_OF_ALL, OURS, TRITONS
from tests.deploy.test_monitoring import EXPRESSIONS, SUBSTITUTES, dashboard_expressions
from tests.operations.prometheus import Prometheus, Target
from tests.reference import png
from tests.server.conftest import infer
from tests.server.observation import metrics_page
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = pytest.mark.deploy

START_SECONDS = 180
# Prometheus takes its targets over within five seconds.
SCRAPES = 17
# The prefix of series that only machines with a GPU export.
OF_GPUS = "nv_gpu_"
ADAPTER = "demo"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A ready server with an adapter."""
    adapters = tmp_path_factory.mktemp("adapters")
    save_demo_adapter(adapters / ADAPTER)
    environment = {"FLORENCE2_ADAPTERS": str(adapters)}
    with (
        (tmp_path_factory.mktemp("server") / "log.txt").open("wb") as log,
        TritonServer(environment=environment, log=log) as server,
    ):
        server.wait_until_ready(START_SECONDS)
        yield server


@pytest.fixture(scope="module")
def prometheus(loaded, tmp_path_factory):
    """A Prometheus with the project's rules that scrapes the server every second while it answers requests."""
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yaml").read_text())
    (scrape, _) = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    relabel = scrape["metric_relabel_configs"]
    with Prometheus(tmp_path_factory.mktemp("prometheus"), rules, relabel=relabel) as found:
        labels = {"namespace": "default", "pod": "florence2-0"}
        found.set_targets([Target(loaded.ports.metrics, labels)])
        _send_requests_while_scraped(loaded)
        yield found


def _send_requests_while_scraped(server: TritonServer) -> None:
    scene = png(draw(sample_scene(61)))
    until = time.monotonic() + SCRAPES
    with Client(server.grpc_url) as client:

        def send(method: str, **options: str) -> None:
            while time.monotonic() < until:
                getattr(client, method)(scene, **options)

        def send_task_lists() -> None:
            request = TaskRequest(task_list={"tasks": [{"caption": {}}, {"ocr": {}}]})
            with triton.InferenceServerClient(server.grpc_url) as plain:
                while time.monotonic() < until:
                    infer(plain, scene, request)

        with ThreadPoolExecutor() as callers:
            sent = [callers.submit(send, method) for method in ("caption", "detect", "read_text")]
            sent.append(callers.submit(send, "caption", adapter=ADAPTER))
            sent.append(callers.submit(send_task_lists))
            for each in sent:
                each.result()


@pytest.mark.parametrize("name", [name for name in {**OURS, **TRITONS} if not name.startswith(OF_GPUS)])
def test_every_series_is_scraped_with_its_labels(prometheus, name):
    selector = f'{name}{{model="florence2"}}' if name in TRITONS else name
    found = prometheus.query(selector)
    assert found
    labels = TRITONS[name] - {"version"} if name in TRITONS else LABELS_OF_ALL.get(name, OURS[name])
    for series in found:
        assert labels <= set(series["metric"])


def test_every_metric_of_the_server_is_listed(loaded):
    """What the dashboard's tests compare it with."""
    found = set(re.findall(r"^# TYPE (florence2_\w+) ", metrics_page(loaded), re.MULTILINE))
    histograms = "|".join([*HISTOGRAMS, "florence2_refusal_seconds"])
    listed = {re.sub(rf"^({histograms})_(sum|count|bucket)$", r"\1", name) for name in {**OURS, **DROPPED}}
    assert found == listed


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_for_gateways_alone_is_not_kept(loaded, prometheus, name):
    lines = [line for line in metrics_page(loaded).splitlines() if line.startswith(name + "{")]
    assert lines
    assert all(set(re.findall(r'(\w+)="', line)) == DROPPED[name] for line in lines)
    assert prometheus.query(name) == []


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_expression_can_be_evaluated(prometheus, where):
    prometheus.query(EXPRESSIONS[where])


# The other panels are empty while nothing is refused, crashes or fails, or until Prometheus has run for long.
@pytest.mark.parametrize(
    "title",
    [
        *(
            "Availability",
            "Error budget left",
            "Served",
            "Failed",
            "Within the objective",
            "Fullest queue",
            "Engines up",
        ),
        *("p95 against the objective", "What is served"),
        *("Requests by task", "Steps by task", "p95 by task", "Batch occupancy", "Slots in use by replica", "Tokens"),
        *("Waiting by replica", "Memory of images", "Oldest waiting request", "Refused"),
        *("Requests by adapter", "Adapters", "Memory of adapters"),
    ],
)
def test_the_panels_that_an_on_call_looks_at_first_have_data(prometheus, title):
    found = {where: expression for where, expression in dashboard_expressions().items() if where.startswith(title)}
    assert found, SUBSTITUTES
    for expression in found.values():
        assert prometheus.query(expression.replace("[1m]", "[10s]"))
