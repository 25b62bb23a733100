"""A server with the variables that the chart renders for two models: probes, adapters, and what `helm test` runs."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from florence2 import Client
from florence2_server.addresses import Ports

from tests.conftest import DEMO_CHECKPOINT
from tests.demo_adapter import save_demo_adapter
from tests.deploy.kubernetes.test_helm_settings import with_adapters_in

pytestmark = pytest.mark.deploy

START_SECONDS, STOP_SECONDS = 180, 60


@pytest.fixture(scope="module")
def ports():
    return Ports.free()


@pytest.fixture(scope="module")
def release(render, ports):
    own = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics}
    own |= {"health": ports.health, "grpcHealth": ports.grpc_health}
    one = {"checkpoint": str(DEMO_CHECKPOINT), "settings": {"slots": 2}}
    return render(
        {
            "gpu": {"count": 0},
            "address": "127.0.0.1",
            "ports": own,
            "settings": {"threads": 1, "slots": 4},
            "adapters": {"claimName": "adapters"},
            "models": [
                {"name": "captions", "checkpoint": str(DEMO_CHECKPOINT), "adapters": "of-captions"},
                {"name": "documents-2", **one},
            ],
        }
    )


@pytest.fixture(scope="module")
def process(release, tmp_path_factory):
    """The server, as the images start it, with an adapter on the volume."""
    volume = tmp_path_factory.mktemp("adapters")
    environment = {**os.environ, **with_adapters_in(volume, release.environment)}
    save_demo_adapter(volume / "of-captions" / "tags")
    command = [sys.executable, "-m", "florence2_server.container"]
    with (tmp_path_factory.mktemp("log") / "log").open("w+") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def status(release, probe: str) -> int:
    """The status that a probe gets; 0 if nobody listens yet."""
    get = release.server[probe]["httpGet"]
    url = f"http://127.0.0.1:{release.ports[get['port']]}{get['path']}"
    try:
        with urllib.request.urlopen(url, timeout=release.server[probe]["timeoutSeconds"]) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_it_is_alive_while_it_loads_and_ready_after_that(process, release):
    alive = set()
    deadline = time.monotonic() + START_SECONDS
    while (started := status(release, "startupProbe")) != 200:
        assert process.poll() is None
        assert time.monotonic() < deadline
        assert started in (0, 503)
        if started == 503:
            alive.add(status(release, "livenessProbe"))
        time.sleep(0.1)
    assert alive == {200}, "liveness must not restart a pod that loads"
    assert status(release, "readinessProbe") == status(release, "livenessProbe") == 200


@pytest.mark.usefixtures("process")
def test_what_helm_test_runs_gets_an_answer_of_each_model(release, ports):
    (container,) = release.one("Pod")["spec"]["containers"]
    _, flag, script, url, *models = container["command"]
    assert url.endswith(f".svc:{ports.grpc}")
    command = [sys.executable, flag, script, f"--url=127.0.0.1:{ports.grpc}", *models]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split(" ")[0] for line in done.stdout.splitlines()] == ["captions", "documents-2"]


@pytest.mark.usefixtures("process")
def test_each_model_has_the_adapters_of_its_folder(ports):
    served = {}
    for model in ("captions", "documents-2"):
        with Client(f"127.0.0.1:{ports.grpc}", model=model) as client:
            (info,) = client.server_info()
            served[model] = [engine.adapters for engine in info.engines]
    assert served == {"captions": [("tags",)], "documents-2": [()]}


def test_the_end_of_the_pod_ends_it(process):
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_SECONDS) == 0
