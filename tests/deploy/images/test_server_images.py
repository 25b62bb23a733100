"""Builds the images of the server and runs them: read-only, as user 1000, without capabilities.

The image for CPUs is built by the documented command and runs with the variables of the chart's example for it. Two
parts of Dockerfile are replaced through its build arguments: NVIDIA's image by a stand-in, and torch for CUDA by
the CPU lock file.
"""

import dataclasses
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from florence2.client import TLS, Client
from florence2.errors import Florence2Error
from florence2_server.tritonserver import Ports

from tests.deploy.certificates import certificates
from tests.deploy.collector import collector
from tests.deploy.conftest import DOCKER, ROOT
from tests.deploy.containers import make_stand_in
from tests.deploy.documented import build_command
from tests.deploy.images.running import CPU, IMAGE, KEY, STOP_SECONDS, serving, status_of

pytestmark = pytest.mark.deploy

CHECKPOINT = "model_repository/florence2/demo_checkpoint"


@pytest.mark.parametrize("name", ["cpu_image", "gpu_image"])
def test_image_metadata_says_how_to_run_it(containers, request, name):
    config = containers.inspect(request.getfixturevalue(name))
    assert config["Config"]["User"] == "1000:1000"
    assert config["Config"]["StopSignal"] == "SIGTERM"
    assert set(config["Config"]["ExposedPorts"]) == {f"{port}/tcp" for port in dataclasses.astuple(Ports())}
    assert config["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert config["Healthcheck"]["Test"][1:4] == ["florence2-server", "health", "--ready"]


@pytest.mark.parametrize("name", ["cpu_image", "gpu_image"])
def test_images_contain_no_build_tools_no_tests_and_no_demo_checkpoint(containers, request, name):
    image = request.getfixturevalue(name)
    with containers.files(image) as root:
        packages = next((root / "opt/florence2/python/lib").glob("python3.*")) / "site-packages"
        assert (packages / "torch" / "lib").is_dir()
        assert not (packages / "torch" / "include").exists()
        assert not (packages / "torch" / "test").exists()
        assert not (packages / "pip").exists()
        assert not (root / "build").exists()
        assert not list((root / "opt/florence2").rglob("demo_checkpoint"))
        ours = root / "opt/florence2/packages"
        assert [*ours.rglob("tests"), *ours.rglob("test_*"), *ours.rglob("conftest.py")] == []
        assert not (root / "etc/pip.conf").exists() or not (root / "etc/pip.conf").read_text()
        baked = {file.name for file in (root / "opt/florence2/checkpoint").iterdir()}
        assert "config.json" in baked if image == CPU else baked == set(), "weights are baked in only by the argument"
        if image == CPU:
            assert not (packages / "setuptools").exists()
            assert [tool for tool in ("gcc", "cc", "make", "pip", "pip3") if (root / "usr/bin" / tool).exists()] == []
            assert list((root / "var/lib/apt/lists").iterdir()) == []


def test_the_documented_image_has_the_name_that_the_charts_example_starts(release):
    assert build_command("Dockerfile.cpu").tag == release.server["image"].partition("@")[0]


def test_the_charts_probes_succeed_in_that_image(server, release):
    health = server.ports.health
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        get = release.server[name]["httpGet"]
        assert release.ports[get["port"]] == health
        assert status_of(f"http://127.0.0.1:{health}{get['path']}") == 200, name


def test_what_helm_test_runs_succeeds_in_that_image(server, release):
    """With the address of the Service, which there is none here, replaced by the server's."""
    (container,) = release.one("Pod")["spec"]["containers"]
    *command, url, model = container["command"]
    assert url.endswith(f".svc:{server.ports.grpc}")
    assert server.container.execute(*command, f"--url={server.url}", model) == 0
    assert server.container.execute(*command, f"--url={server.url}", "--model=florence3") != 0


def test_the_image_answers_a_client(server):
    with Client(server.url) as client:
        assert client.caption(IMAGE).text
        assert len(client.detect(IMAGE).boxes) > 0


def test_the_container_runs_as_user_1000_and_can_write_only_to_its_mounts(server):
    inside = server.container.execute
    assert inside("sh", "-c", 'test "$(id -u):$(id -g)" = 1000:1000') == 0
    for folder in (
        "/",
        "/opt/florence2",
        "/opt/florence2/packages/florence2_server/model_repository/florence2/1",
        "/var/cache/huggingface",
        "/etc",
    ):
        assert inside("sh", "-c", f"touch {folder}/file") != 0, folder
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - its mounts
        assert inside("sh", "-c", f"touch {folder}/file && rm {folder}/file") == 0, folder


def test_the_image_serves_metrics(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as page:
        assert b"florence2_waiting_requests" in page.read()


def test_administrative_apis_require_the_key(server):
    statistics = f"{server.http_url}/v2/models/florence2/stats"
    assert status_of(statistics) in (401, 403)
    assert status_of(statistics, **{"admin-key": "guess"}) in (401, 403)
    assert status_of(statistics, **{"admin-key": KEY}) == 200
    assert status_of(f"{server.http_url}/v2/systemsharedmemory/status") in (401, 403)


def test_the_key_is_not_logged(server):
    assert KEY not in server.container.log()


def test_sigterm_finishes_requests_in_flight_and_exits_with_status_0(containers, cpu_image):
    with (
        serving(containers, cpu_image) as served,
        Client(served.url) as client,
    ):
        processes = served.container.processes()
        assert len(processes) >= 4, "Triton, two stubs and the engine"
        answers = []
        long = threading.Thread(target=lambda: answers.append(client.read_text(IMAGE, min_new_tokens=900)))
        long.start()
        time.sleep(1)
        assert not answers, "the request must be in flight when the signal arrives"
        served.container.signal("SIGTERM")
        assert served.container.wait(STOP_SECONDS) == 0
        long.join()
        assert len(answers) == 1
        assert [process for process in processes if Path(f"/proc/{process}").exists()] == []


def test_without_a_checkpoint_the_image_refuses_to_start_with_a_reason(containers, gpu_image):
    with containers.running(gpu_image, {"FLORENCE2_REQUIRE_GPU": "0"}) as container:
        assert container.wait(STOP_SECONDS) == 1
        assert (
            container.log()
            == "FLORENCE2_CHECKPOINT: not set, and this image has no checkpoint; name a folder or a hub id\n"
        )


def test_mutual_tls_and_traces(containers, cpu_image, tmp_path):
    certificates(tmp_path)
    with (
        collector() as traces,
        serving(
            containers,
            cpu_image,
            f"--volume={tmp_path}:/tls:ro",
            GRPC_TLS_CERTIFICATE="/tls/server.pem",
            GRPC_TLS_KEY="/tls/server.key",
            GRPC_TLS_CLIENT_AUTHORITY="/tls/authority.pem",
            OTLP_ENDPOINT=f"http://127.0.0.1:{traces.server_port}",
            TRACE_RATE="1",
        ) as served,
    ):
        url = f"localhost:{served.ports.grpc}"
        trusted = TLS(tmp_path / "authority.pem", tmp_path / "client.key", tmp_path / "client.pem")
        with Client(url, tls=trusted) as client:
            assert client.caption(IMAGE).text
        for stranger in (None, TLS(tmp_path / "authority.pem")):
            with Client(url, tls=stranger, retry=None) as client, pytest.raises(Florence2Error):
                client.caption(IMAGE, timeout=5)
        assert status_of(f"http://127.0.0.1:{served.ports.health}/ready") == 200, "probes need no certificate"
        served.container.wait_until(lambda: any(b"florence2" in body for body in traces.bodies), 30)
        assert traces.paths == {"/v1/traces"}


def test_the_gpu_image_does_not_start_without_a_gpu(containers, gpu_image):
    with containers.running(gpu_image, {}) as container:
        assert container.wait(STOP_SECONDS) == 1
        assert container.log() == "FLORENCE2_REQUIRE_GPU: no NVIDIA GPU is visible to this container\n"


def test_the_gpu_image_serves_mounted_weights(containers, gpu_image):
    mounted = f"--volume={ROOT / CHECKPOINT}:/checkpoint:ro"
    with serving(containers, gpu_image, mounted, CHECKPOINT="/checkpoint", REQUIRE_GPU="0") as served:
        with Client(served.url) as client:
            assert client.caption(IMAGE).text
        served.container.signal("SIGTERM")
        assert served.container.wait(STOP_SECONDS) == 0


def test_the_gpu_image_build_fails_if_python_versions_differ(containers):
    stand_in = make_stand_in(containers, stub="3.10")
    with pytest.raises(AssertionError, match=r'(?s)building at STEP "RUN python3 -c.*exit status 1'):
        containers.build("localhost/never", (DOCKER / "Dockerfile").read_text(), f"--build-arg=TRITON_IMAGE={stand_in}")
