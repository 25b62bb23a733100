"""The probes of a server without the port for health: two models behind an IPv6 address."""

import os
import signal
import subprocess
import sys
import time

import pytest
from florence2_server.addresses import Ports

from tests.conftest import DEMO_CHECKPOINT

pytestmark = pytest.mark.deploy

START_SECONDS, STOP_SECONDS = 180, 60


@pytest.fixture(scope="module")
def release(render):
    ports = Ports.free()
    own = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics, "health": 0, "grpcHealth": 0}
    return render(
        {
            "gpu": {"count": 0},
            "address": "::1",
            "ports": own,
            "settings": {"threads": 1, "slots": 2},
            "models": [{"name": name, "checkpoint": str(DEMO_CHECKPOINT)} for name in ("captions", "documents")],
        }
    )


def probe(release, name: str) -> subprocess.CompletedProcess[str]:
    """Run a probe's command with the container's environment."""
    program, *arguments = release.server[name]["exec"]["command"]
    assert program == "florence2-server"
    return subprocess.run(
        [sys.executable, "-m", "florence2_server", *arguments],
        env={**os.environ, **release.environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_probes_succeed_once_both_models_are_ready_and_not_after_the_end(release, tmp_path):
    command = [sys.executable, "-m", "florence2_server.container"]
    environment = {**os.environ, **release.environment}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (done := probe(release, "startupProbe")).returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline, done.stdout
        assert "captions running, documents running; through http://[::1]:" in done.stdout
        for name in ("readinessProbe", "livenessProbe"):
            assert probe(release, name).returncode == 0, name
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
    assert probe(release, "livenessProbe").returncode == 1
