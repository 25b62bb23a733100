"""Both images, built and run: read-only, as user 1000, without capabilities.

Of Dockerfile, all is built but what cannot be had here: NVIDIA's image (a stand-in takes its place) and torch for CUDA
(the CPU's lock file takes its place, by the build argument that is there for that).
"""

import contextlib
import http.server
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from florence2.client import TLS, Client
from florence2.errors import Florence2Error
from serve import Ports

from tests.deploy.conftest import DOCKER, ROOT, run
from tests.deploy.containers import DEBIAN, ContainerEngine, make_debian, make_stand_in, torch_index

pytestmark = pytest.mark.deploy

CPU, GPU = "localhost/florence2-triton:cpu", "localhost/florence2-triton:gpu"
IMAGE = ROOT / "examples" / "scene.png"
CHECKPOINT = "model_repository/florence2/demo_checkpoint"
START_SECONDS, STOP_SECONDS = 180, 60
KEY = "a=secret:with/marks"


@pytest.fixture(scope="session")
def containers():
    containers = ContainerEngine()
    try:
        make_debian(containers)
    except AssertionError as error:  # no mirror of Debian's, or no leave to unpack and mount
        pytest.skip(f"Debian's image cannot be made on this machine: {str(error).strip().splitlines()[-1]}")
    containers.require_running(DEBIAN)
    return containers


@pytest.fixture(scope="session")
def images(containers, figure):
    """Both, built side by side: either takes minutes of one core."""
    arguments = {
        "TRITON_IMAGE": make_stand_in(containers),
        "LOCK": "docker/requirements-cpu.lock",
        "CHECKPOINT": CHECKPOINT,
    }
    gpu_arguments = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as builders:
        cpu = builders.submit(built, containers, figure, CPU, "Dockerfile.cpu", *torch_index())
        gpu = builders.submit(built, containers, figure, GPU, "Dockerfile", *gpu_arguments)
    figure("s to build both", time.monotonic() - begin)
    return {"cpu": cpu.result(), "gpu": gpu.result()}


@pytest.fixture(scope="session")
def cpu_image(images):
    return images["cpu"]


@pytest.fixture(scope="session")
def gpu_image(images):
    return images["gpu"]


def built(containers, figure, name, dockerfile, *arguments):
    containers.build(name, (DOCKER / dockerfile).read_text(), *arguments)
    base = " on its stand-in, with torch for CPU" if name == GPU else ""
    figure(f"MB of {dockerfile}'s image{base}", containers.inspect(name)["Size"] / 1e6)
    return name


class Served:
    """A container on ports of its own, that serves."""

    def __init__(self, container, ports):
        self.container, self.ports = container, ports
        self.url, self.http_url = f"127.0.0.1:{ports.grpc}", f"http://127.0.0.1:{ports.http}"


@contextlib.contextmanager
def serving(containers, image, *options, **environment):
    ports = Ports.free()
    environment = {
        "ADDRESS": "127.0.0.1",
        "HTTP_PORT": str(ports.http),
        "GRPC_PORT": str(ports.grpc),
        "METRICS_PORT": str(ports.metrics),
        **environment,
    }
    settings = {f"FLORENCE2_{name}": value for name, value in environment.items()}
    with containers.running(image, settings, *options) as container:
        served = Served(container, ports)
        container.wait_until(lambda: not container.is_running() or is_healthy(containers, image, served), START_SECONDS)
        assert container.is_running(), container.log()
        yield served


def is_healthy(containers, image, served):
    """What the image's own HEALTHCHECK says."""
    kind, *command = containers.inspect(image)["Healthcheck"]["Test"]
    assert kind == "CMD"
    return served.container.execute(*command) == 0


def demo_checkpoint():
    return f"--volume={ROOT / CHECKPOINT}:/checkpoint:ro"


@pytest.fixture(scope="module")
def server(containers, cpu_image, tmp_path_factory):
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(f"{KEY}\n")
    mounts = (demo_checkpoint(), f"--volume={key}:/run/key:ro")
    with serving(
        containers, cpu_image, *mounts, CHECKPOINT="/checkpoint", RESTRICTED_PROTOCOL_KEY_FILE="/run/key"
    ) as served:
        yield served


def status_of(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("name", ["cpu_image", "gpu_image"])
def test_the_image_says_how_it_is_to_be_run(containers, request, name):
    config = containers.inspect(request.getfixturevalue(name))
    assert config["Config"]["User"] == "1000:1000"
    assert config["Config"]["StopSignal"] == "SIGTERM"
    assert set(config["Config"]["ExposedPorts"]) == {"8000/tcp", "8001/tcp", "8002/tcp"}
    assert config["Config"]["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "florence2 health" in config["Healthcheck"]["Test"][-1]


@pytest.mark.parametrize("name", ["cpu_image", "gpu_image"])
def test_nothing_is_left_of_the_build(containers, request, name):
    image = request.getfixturevalue(name)
    with containers.files(image) as root:
        packages = next((root / "opt/florence2/python/lib").glob("python3.*")) / "site-packages"
        assert (packages / "torch" / "lib").is_dir()
        assert not (packages / "torch" / "include").exists()
        assert not (packages / "pip").exists()
        assert not (root / "build").exists()
        assert not list((root / "opt/florence2").rglob("demo_checkpoint"))
        assert not (root / "etc/pip.conf").exists() or not (root / "etc/pip.conf").read_text()
        if image == CPU:
            assert [tool for tool in ("gcc", "cc", "make", "pip", "pip3") if (root / "usr/bin" / tool).exists()] == []
            assert list((root / "var/lib/apt/lists").iterdir()) == []
            assert list((root / "opt/florence2/checkpoint").iterdir()) == [], "weights are not baked in by default"


def test_it_answers_a_client(server):
    with Client(server.url) as client:
        assert client.caption(IMAGE).text
        assert len(client.detect(IMAGE).boxes) > 0


def test_it_runs_as_user_1000_and_writes_nowhere_but_to_its_mounts(server):
    inside = server.container.execute
    assert inside("sh", "-c", 'test "$(id -u):$(id -g)" = 1000:1000') == 0
    for folder in (
        "/",
        "/opt/florence2",
        "/opt/florence2/model_repository/florence2/1",
        "/var/cache/huggingface",
        "/etc",
    ):
        assert inside("sh", "-c", f"touch {folder}/file") != 0, folder
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108 - these are its mounts
        assert inside("sh", "-c", f"touch {folder}/file && rm {folder}/file") == 0, folder


def test_the_metrics_page_is_there(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports.metrics}/metrics", timeout=10) as page:
        assert b"nv_inference_pending_request_count" in page.read()


def test_administration_wants_the_key(server):
    statistics = f"{server.http_url}/v2/models/florence2/stats"
    assert status_of(statistics) in (401, 403)
    assert status_of(statistics, **{"admin-key": "guess"}) in (401, 403)
    assert status_of(statistics, **{"admin-key": KEY}) == 200
    assert status_of(f"{server.http_url}/v2/systemsharedmemory/status") in (401, 403)


def test_the_key_is_in_no_log(server):
    assert KEY not in server.container.log()


def test_sigterm_lets_it_answer_what_it_has_and_ends_it_with_status_0(containers, cpu_image):
    with (
        serving(containers, cpu_image, demo_checkpoint(), CHECKPOINT="/checkpoint") as served,
        Client(served.url) as client,
    ):
        processes = served.container.processes()
        assert len(processes) >= 4, "Triton, two stubs and the engine"
        answers = []
        long = threading.Thread(target=lambda: answers.append(client.read_text(IMAGE, min_new_tokens=900)))
        long.start()
        time.sleep(1)
        assert not answers, "the question is to be under way when the signal comes"
        served.container.signal("SIGTERM")
        assert served.container.wait(STOP_SECONDS) == 0
        long.join()
        assert len(answers) == 1
        assert [process for process in processes if Path(f"/proc/{process}").exists()] == []


def test_without_a_checkpoint_it_does_not_start_and_says_why(containers, cpu_image):
    with containers.running(cpu_image, {}) as container:
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
            demo_checkpoint(),
            f"--volume={tmp_path}:/tls:ro",
            CHECKPOINT="/checkpoint",
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
        served.container.wait_until(lambda: any(b"florence2" in body for body in traces.bodies), 30)
        assert traces.paths == {"/v1/traces"}


def certificates(folder):
    """An authority, and a server and a client that it vouches for."""
    openssl = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    )
    run(*openssl, "-subj", "/CN=authority", "-keyout", "authority.key", "-out", "authority.pem", cwd=folder)
    for name in ("server", "client"):
        signed = ("-CA", "authority.pem", "-CAkey", "authority.key", "-addext", "subjectAltName=DNS:localhost")
        run(*openssl, *signed, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", cwd=folder)
    folder.chmod(0o755)  # the container's user is another
    for key in folder.glob("*.key"):
        key.chmod(0o644)


@contextlib.contextmanager
def collector():
    """An OpenTelemetry collector, as far as Triton knows."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.paths.add(self.path)
            self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.paths, server.bodies = set(), []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_gpu_image_does_not_start_without_a_gpu(containers, gpu_image):
    with containers.running(gpu_image, {}) as container:
        assert container.wait(STOP_SECONDS) == 1
        assert container.log() == "FLORENCE2_REQUIRE_GPU: no NVIDIA GPU is visible to this container\n"


def test_the_gpu_image_serves_the_weights_that_are_baked_in(containers, gpu_image):
    with serving(containers, gpu_image, REQUIRE_GPU="0") as served:
        with Client(served.url) as client:
            assert client.caption(IMAGE).text
        served.container.signal("SIGTERM")
        assert served.container.wait(STOP_SECONDS) == 0


def test_the_gpu_image_is_not_built_where_pythons_differ(containers):
    stand_in = make_stand_in(containers, stub="3.10")
    with pytest.raises(AssertionError, match=r'(?s)building at STEP "RUN python3 -c.*exit status 1'):
        containers.build("localhost/never", (DOCKER / "Dockerfile").read_text(), f"--build-arg=TRITON_IMAGE={stand_in}")
