"""The images, built by real tools, and a container of the server's image for CPUs."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from florence2_server.tritonserver import Ports

from tests.deploy.conftest import DOCKER, ROOT
from tests.deploy.containers import DEBIAN, ContainerEngine, make_debian, make_stand_in, torch_index
from tests.deploy.documented import build_command
from tests.deploy.images.running import CPU, GPU, KEY, WEB, free_port, started
from tests.deploy.kubernetes.cases import example, merged

_BUILD_GB = 14  # of layers and of copies of them while they are stored


@pytest.fixture(scope="session")
def containers():
    containers = ContainerEngine()
    try:
        make_debian(containers)
    except AssertionError as error:  # no Debian mirror, or no permission to unpack and mount
        pytest.skip(f"Debian's image cannot be made on this machine: {str(error).strip().splitlines()[-1]}")
    containers.require_running(DEBIAN)
    return containers


@pytest.fixture(scope="session")
def images(containers, figure):
    """All images, built in parallel: those of the server take minutes of one core."""
    arguments = {
        "TRITON_IMAGE": make_stand_in(containers),
        "LOCK": "docker/requirements-cpu.lock",
    }
    gpu_arguments = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    # buildah's own error without space is "read/write on closed pipe".
    free = shutil.disk_usage(ROOT).free / 1e9
    assert free > _BUILD_GB, f"{free:.1f} GB of the disk are free, expected at least {_BUILD_GB} to build the images"
    begin = time.monotonic()
    with ThreadPoolExecutor(3) as builders:
        documented = build_command("Dockerfile.cpu").arguments
        cpu = builders.submit(built, containers, figure, CPU, "Dockerfile.cpu", *documented, *torch_index())
        gpu = builders.submit(built, containers, figure, GPU, "Dockerfile", *gpu_arguments)
        web = builders.submit(
            built, containers, figure, WEB, "Dockerfile.web", *build_command("Dockerfile.web").arguments
        )
    figure("s to build all images", time.monotonic() - begin)
    return {"cpu": cpu.result(), "gpu": gpu.result(), "web": web.result()}


@pytest.fixture(scope="session")
def cpu_image(images):
    return images["cpu"]


@pytest.fixture(scope="session")
def gpu_image(images):
    return images["gpu"]


@pytest.fixture(scope="session")
def web_image(images):
    return images["web"]


def built(containers, figure, name, dockerfile, *arguments):
    containers.build(name, (DOCKER / dockerfile).read_text(), *arguments)
    base = " on its stand-in, with torch for CPU" if name == GPU else ""
    figure(f"MB of {dockerfile}'s image{base}", containers.inspect(name)["Size"] / 1e6)
    return name


@pytest.fixture(scope="package")
def ports():
    return Ports.free()


@pytest.fixture(scope="package")
def release(render, ports):
    """The chart with its example for CPUs, on free ports of this machine."""
    own = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics}
    own |= {"health": ports.health, "grpcHealth": ports.grpc_health}
    web = {"enabled": True, "port": free_port(), "apiKeys": {"secretName": "callers"}}
    given = {"ports": own, "address": "127.0.0.1", "adminKeySecret": {"name": "admin"}, "web": web}
    return render(merged(example("cpu"), given))


@pytest.fixture(scope="package")
def server(containers, cpu_image, release, ports, tmp_path_factory):
    """The documented image, with the variables and the secret of the chart's container."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(f"{KEY}\n")
    assert "args" not in release.server
    path = release.environment["FLORENCE2_RESTRICTED_PROTOCOL_KEY_FILE"]
    with started(containers, cpu_image, ports, release.environment, f"--volume={key}:{path}:ro") as served:
        yield served
