"""Containers of the images, and what is asked of them."""

import contextlib
import dataclasses
import socket
import urllib.error
import urllib.request

from florence2_server.tritonserver import Ports

from tests.deploy.conftest import ROOT

CPU, GPU = "localhost/florence2-triton:cpu", "localhost/florence2-triton:gpu"
WEB = "localhost/florence2-triton-web:1"
IMAGE = ROOT / "examples" / "scene.png"
START_SECONDS, STOP_SECONDS = 180, 60
KEY = "a=secret:with/marks"


class Served:
    """A ready container and its ports."""

    def __init__(self, container, ports):
        self.container, self.ports = container, ports
        self.url, self.http_url = f"127.0.0.1:{ports.grpc}", f"http://127.0.0.1:{ports.http}"


def serving(containers, image, *options, **environment):
    ports = Ports.free()
    listening = {f"{name.upper()}_PORT": str(port) for name, port in dataclasses.asdict(ports).items()}
    environment = {"ADDRESS": "127.0.0.1", **listening, **environment}
    settings = {f"FLORENCE2_{name}": value for name, value in environment.items()}
    return started(containers, image, ports, settings, *options)


@contextlib.contextmanager
def started(containers, image, ports, environment, *options):
    with containers.running(image, environment, *options) as container:
        served = Served(container, ports)
        container.wait_until(lambda: not container.is_running() or is_healthy(containers, image, served), START_SECONDS)
        assert container.is_running(), container.log()
        yield served


def is_healthy(containers, image, served):
    """Run the image's own HEALTHCHECK."""
    kind, *command = containers.inspect(image)["Healthcheck"]["Test"]
    assert kind == "CMD"
    return served.container.execute(*command) == 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def status_of(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
