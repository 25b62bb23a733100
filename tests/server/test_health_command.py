"""`florence2-server health` and real servers: two models on all addresses, and one model without a port for health."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest
from florence2_server.addresses import Hosts, Ports
from florence2_server.served_model import served_models
from florence2_server.tritonserver import TritonServer

from tests.conftest import DEMO_CHECKPOINT
from tests.server.conftest import START_SECONDS, children_of
from tests.server.observation import seconds_until
from tests.server.test_health import runs_model

MODELS = f"captions={DEMO_CHECKPOINT} documents={DEMO_CHECKPOINT}"
UNREACHABLE_SECONDS = 20


def health(server: TritonServer, *options: str, **variables: str) -> tuple[int, str]:
    """The exit status and the line of a probe that has the server's environment."""
    variables = {**{f"{name.upper()}_PORT": str(port) for name, port in asdict(server.ports).items()}, **variables}
    environment = {**os.environ, **{f"FLORENCE2_{name}": value for name, value in variables.items()}}
    command = [sys.executable, "-m", "florence2_server", "health", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.rstrip("\n")


@contextmanager
def serving(folder, address: str, models: str = "", ports: Ports | None = None):
    hosts, served = Hosts.all_at(address), served_models(models.split(), [])
    with (folder / "log.txt").open("wb") as log, TritonServer(ports, log=log, hosts=hosts, models=served) as server:
        server.wait_until_ready(START_SECONDS)
        # The port for health observes the models twice a second, so it may report them as starting a moment longer.
        seconds_until(
            lambda: health(server, "--ready", "--timeout=30", ADDRESS=address, MODELS=models)[0] == 0, limit=30
        )
        yield server


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """A server of two models that listens on all addresses of IPv6, its ports for health also on those of IPv4."""
    with serving(tmp_path_factory.mktemp("two"), "::", MODELS) as server:
        yield server


@pytest.mark.parametrize("options", [["--timeout=30"], ["--ready", "--timeout=30"]])
@pytest.mark.parametrize("address", ["::", "[::]", "::1"])
def test_two_models_are_healthy_by_the_port_for_health_and_through_triton(two_models, address, options):
    variables = {"ADDRESS": address, "MODELS": MODELS}
    states = "healthy: captions running, documents running"
    assert health(two_models, *options, **variables) == (0, states)
    through = f"{states}; through http://[::1]:{two_models.ports.http}"
    assert health(two_models, *options, **variables, HEALTH_PORT="0") == (0, through)


def test_a_model_that_is_not_served_is_unhealthy_through_triton(two_models):
    models = f"{MODELS} other={DEMO_CHECKPOINT}"
    status, line = health(two_models, "--timeout=30", ADDRESS="::1", MODELS=models, HEALTH_PORT="0")
    assert status == 1
    assert line.startswith("unhealthy: captions running, documents running, other unreachable (HTTP 4")


def test_a_server_on_one_address_without_a_port_for_health_is_found_there(tmp_path):
    ports = replace(Ports.free(), health=0, grpc_health=0)
    with serving(tmp_path, "127.0.0.5", ports=ports) as server:
        expected = f"healthy: florence2 running; through http://127.0.0.5:{ports.http}"
        assert health(server, "--ready", "--timeout=30", ADDRESS="127.0.0.5") == (0, expected)
        status, line = health(server, ADDRESS="127.0.0.1")
        assert status == 1, "it does not listen there"
        assert "Connection refused" in line


def test_a_server_with_default_settings_is_healthy_until_its_stub_is_killed(tmp_path):
    with serving(tmp_path, "127.0.0.1") as server:
        assert health(server, "--ready", "--timeout=30") == (0, "healthy: florence2 running")
        (stub,) = [child for child in children_of(server.process_id) if runs_model(child)]
        os.kill(stub, signal.SIGKILL)
        deadline = time.monotonic() + UNREACHABLE_SECONDS
        while (seen := health(server, "--timeout=30"))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert seen == (1, "unhealthy: florence2 unreachable")
        status, line = health(server, "--timeout=30", HEALTH_PORT="0")
        assert status == 1
        assert line.startswith("unhealthy: florence2 unreachable")
