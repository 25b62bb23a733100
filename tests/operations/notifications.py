"""Prometheus, Alertmanager and the receiver of compose.yaml as processes on this machine, faster by one constant."""

import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml
from florence2_server.tritonserver import Ports

from tests.deploy.conftest import DOCKER, debian_tool
from tests.operations.scaling import divided, divided_rules
from tests.server.observation import seconds_until

STOP_SECONDS = 30
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
_DURATIONS = ("group_wait", "group_interval", "repeat_interval")


@dataclass(frozen=True)
class Monitoring:
    """Base URLs of the three.

    Attributes:
        log: the receiver's standard output.
    """

    prometheus: str
    alertmanager: str
    receiver: str
    log: Path

    def notifications(self) -> list[str]:
        """The lines of the receiver's page, newest first."""
        return fetch(self.receiver).splitlines()


def fetch(url: str, body: bytes | None = None) -> str:
    """The answer to a GET, or to a POST of JSON."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


def start(stack: ExitStack, folder: Path, metrics_port: int) -> Monitoring:
    """Start all three, wait until they are ready, and stop them when the stack ends.

    Args:
        stack: owns the processes.
        folder: an empty folder.
        metrics_port: of the server that Prometheus scrapes in place of compose's.
    """
    ports = Ports.free()
    addresses = [f"127.0.0.1:{port}" for port in (ports.http, ports.grpc, ports.metrics)]
    prometheus, alertmanager, receiver = addresses
    services = {"server:8002": f"127.0.0.1:{metrics_port}", "localhost:9090": prometheus}
    services |= {"alertmanager:9093": alertmanager, "notifications:9095": receiver}
    _write(folder / "rules.yaml", divided_rules())
    _write(folder / "prometheus.yml", _prometheus_configuration(services))
    _write(folder / "alertmanager.yml", _alertmanager_configuration(services))
    log = folder / "receiver.txt"
    _process(stack, log, sys.executable, str(DOCKER / "alertmanager" / "receiver.py"), *receiver.split(":"))
    _process(stack, folder / "alertmanager.txt", *_alertmanager_command(folder, alertmanager))
    _process(
        stack,
        folder / "prometheus.txt",
        debian_tool("prometheus", "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={prometheus}",
    )
    for url in (f"http://{prometheus}/-/ready", f"http://{alertmanager}/-/ready", f"http://{receiver}/"):
        seconds_until(lambda url=url: _answers(url))
    return Monitoring(f"http://{prometheus}", f"http://{alertmanager}", f"http://{receiver}", log)


def _prometheus_configuration(services: dict[str, str]) -> dict:
    """Compose's, with other addresses and shorter intervals."""
    text = (DOCKER / "prometheus" / "prometheus.yml").read_text()
    for service, address in services.items():
        text = text.replace(service, address)
    config = yaml.safe_load(text)
    config["global"] = {name: divided(interval) for name, interval in config["global"].items()}
    return config


def _alertmanager_configuration(services: dict[str, str]) -> dict:
    """Compose's, with other addresses and shorter intervals."""
    text = (DOCKER / "alertmanager" / "alertmanager.yml").read_text()
    for service, address in services.items():
        text = text.replace(service, address)
    config = yaml.safe_load(text)
    for route in (config["route"], *config["route"]["routes"]):
        route |= {name: divided(route[name]) for name in _DURATIONS if name in route}
    return config


def _alertmanager_command(folder: Path, address: str) -> list[str]:
    """Compose's flags, with this machine's paths and port."""
    replaced = {"--config.file": folder / "alertmanager.yml", "--storage.path": folder / "notifications"}
    flags = dict(flag.split("=", 1) for flag in COMPOSE["services"]["alertmanager"]["command"])
    assert set(replaced) <= set(flags)
    flags |= replaced | {"--web.listen-address": address}
    tool = debian_tool("prometheus-alertmanager", "prometheus-alertmanager")
    return [tool, *(f"{flag}={value}" for flag, value in flags.items())]


def _process(stack: ExitStack, log: Path, *command: str) -> None:
    file = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(command, stdout=file, stderr=file)
    stack.callback(process.wait, STOP_SECONDS)
    stack.callback(process.terminate)


def _answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True


def _write(file: Path, content: dict) -> None:
    file.write_text(yaml.safe_dump(content, sort_keys=False))
