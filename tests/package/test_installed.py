"""Both wheels in clean environments: the client alone, and the server with a tritonserver, which answers the client."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from florence2_server.tritonserver import Ports

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.package.environments import INSTALLER, assert_knows_nothing_of_the_checkout
from tests.server.conftest import port_options

pytestmark = pytest.mark.package

START_SECONDS, STOP_SECONDS = 600, 60
CHECK = ROOT / "tests" / "package" / "check_installed.py"
DETECT = """
import json, sys
import florence2
with florence2.Client(sys.argv[1]) as client:
    found = client.detect(sys.argv[2])
print(json.dumps([found.labels, found.boxes.tolist()]))
"""
# The scene's shapes, by the colors that they are drawn in.
SHAPES = {"red circle": "red", "blue square": "blue", "green triangle": "green"}
PIXELS = 12


@pytest.fixture(scope="module")
def client_environment(make_environment, client_distribution):
    environment = make_environment("client")
    environment.run("pip", "install", "--no-compile", client_distribution.wheel)
    return environment


@pytest.fixture(scope="module")
def server_environment(make_environment, client_distribution, server_distribution):
    """Both wheels, the tritonserver extra, and all that they bring, as the project pins it."""
    environment = make_environment("server")
    wheels = (client_distribution.wheel, f"{server_distribution.wheel}[tritonserver]")
    environment.run(
        *("python", INSTALLER, "--no-compile", "--constraint", ROOT / "requirements" / "server.txt", *wheels)
    )
    return environment


@pytest.fixture(scope="module")
def url(server_environment, tmp_path_factory):
    """The gRPC url of a server started with the installed command from a model repository that it wrote."""
    folder = tmp_path_factory.mktemp("served")
    server_environment.run("florence2-server", "repository", folder / "models")
    ports, log = Ports.free(), folder / "log"
    flags = port_options(ports)
    process = server_environment.start(
        log, "florence2-server", "serve", f"--model-repository={folder / 'models'}", *flags
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{ports.http}/v2/health/ready", log)
        yield f"127.0.0.1:{ports.grpc}"
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def wait_until_ready(process: subprocess.Popen, url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(url):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def box_of(color: str) -> np.ndarray:
    """The pixels of a color in the scene: x_min, y_min, x_max, y_max."""
    pixels = np.asarray(PIL.Image.open(EXAMPLE_SCENE).convert("RGB")).astype(int)
    channel = ("red", "green", "blue").index(color)
    rows, columns = np.nonzero(pixels[..., channel] > np.delete(pixels, channel, axis=2).max(axis=2) + 50)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def test_the_client_works_alone_and_brings_what_it_says(client_environment):
    assert_knows_nothing_of_the_checkout(client_environment, "florence2")
    assert "florence2 works alone" in client_environment.run("python", CHECK)
    client_environment.run("pip", "check")


def test_the_server_is_installed_with_the_pinned_packages(server_environment):
    assert_knows_nothing_of_the_checkout(server_environment, "florence2", "florence2_server")
    pins = (ROOT / "requirements" / "server.txt").read_text().lower().replace("_", "-").split()
    frozen = server_environment.run("pip", "freeze").lower().replace("_", "-").replace("+cpu", "").split()
    assert len(set(pins) & set(frozen)) > 40
    assert {line for line in pins if "==" in line} <= set(frozen)
    server_environment.run("pip", "check")


def test_the_installed_client_gets_a_true_answer_from_the_installed_server(client_environment, url):
    client_environment.run("florence2", "health", "--ready", "--timeout=10", "--url", url)
    labels, boxes = json.loads(client_environment.run("python", "-c", DETECT, url, EXAMPLE_SCENE))
    assert sorted(labels) == sorted(SHAPES)
    for label, box in zip(labels, boxes, strict=True):
        assert np.abs(np.array(box) - box_of(SHAPES[label])).max() <= PIXELS, label
