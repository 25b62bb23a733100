"""Whoever follows the runbook gets somewhere: its commands run verbatim, with a live server behind the stand-ins."""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from florence2 import Client

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.deploy.runbook_dashboard import sections
from tests.operations.kubectl import Cluster
from tests.operations.scaling import alerts
from tests.server.observation import engine_of

SECONDS = 60
INTRODUCTION, ALERTS = sections()
HEALTHY = "healthy: server live, model ready, engine running"

# What the output of a section's commands has to say, beside that of the first block.
SAYS = {
    "Florence2ErrorBudgetBurnFast": ["Z E ", "restarting it"],
    "Florence2ErrorBudgetBurnSlow": ["Z E ", "restarting it"],
    "Florence2LatencyBudgetBurnFast": ["florence2_objective_seconds{", 'task_class="short"', "node-1"],
    "Florence2LatencyBudgetBurnSlow": ["hpa", "captions-florence2-triton"],
    "Florence2DeadlineStorm": [HEALTHY, "florence2_oldest_waiting_seconds{", "florence2_engine_restarts_total{"],
    "Florence2Down": [HEALTHY, "event", "servicemonitor"],
    "Florence2ReplicaDown": ["captions-florence2-triton-6c5d8f7b9-x2v7q", "node"],
    "Florence2EngineDown": [HEALTHY, "restarting it"],
    "Florence2EngineRestarting": ["restarting it", "9472Mi"],
    "Florence2NoAnswers": [HEALTHY],
    "Florence2QueueGrowing": ["hpa"],
    "Florence2QueueFull": ["florence2_waiting_requests{", "florence2_queue_limit_bytes{"],
    "Florence2ImageCacheUseless": ["florence2_image_embedding_cache_bytes{"],
}


def commands_of(text: str) -> list[str]:
    """The shell blocks of a part of the runbook."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# Sets the variables of all others.
FIRST = commands_of(INTRODUCTION)[0]


@dataclass(frozen=True)
class Terminal:
    """A shell in a folder that has `docker/` of the repository, with the stand-ins first on the PATH."""

    folder: Path
    cluster: Cluster

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script, without ending at a command that fails."""
        path = os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]])
        return subprocess.run(
            ["bash", "-uc", script],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def calls(self) -> list[list]:
        """Exit status, folder, command and arguments of every call of a stand-in so far."""
        return [json.loads(line) for line in Path(self.cluster.calls).read_text().splitlines()]


@pytest.fixture(scope="module")
def terminal(server, tmp_path_factory):
    """A terminal, and behind it a server that has answered requests, before and after its engine crashed."""
    folder = tmp_path_factory.mktemp("terminal")
    shutil.copytree(ROOT / "docker", folder / "docker")  # the commands write files
    (folder / "bin").mkdir()
    ports = server.ports
    cluster = Cluster(
        namespace="vision",
        release="captions",
        deployment="captions-florence2-triton",
        pod="captions-florence2-triton-6c5d8f7b9-x2v7q",
        ports={"8000": ports.http, "8001": ports.grpc, "8002": ports.metrics, "8003": ports.health},
        log=str(server.log_file),
        calls=str(folder / "calls"),
    )
    Path(cluster.calls).touch()
    cluster.install(folder / "bin", ROOT)
    _crash_between_requests(server)
    return Terminal(folder, cluster)


def _crash_between_requests(server) -> None:
    with Client(server.grpc_url) as client:
        client.caption(EXAMPLE_SCENE)
        crashed = engine_of(server)
        os.kill(crashed, signal.SIGKILL)
        client.caption(EXAMPLE_SCENE)  # answered by the next engine


def check(terminal: Terminal, script: str, *, expected: list[str]) -> str:
    """Run a script: no stand-in fails, and the output has what is expected. Returns the output."""
    before = len(terminal.calls())
    done = terminal.run(script)
    calls = terminal.calls()[before:]
    assert calls
    assert [call for call in calls if call[0] != 0] == [], done.stderr
    assert not done.stderr, done.stderr
    for text in expected:
        assert text in done.stdout, done.stdout
    return done.stdout


def test_the_commands_before_the_first_one_say_what_is_served(terminal):
    output = check(terminal, "\n".join(commands_of(INTRODUCTION)), expected=[HEALTHY, '"state": "running"'])
    assert "florence2_info{" in output
    assert 'device="cpu"' in output
    (log,) = terminal.folder.glob("*.log")
    assert "restarting it" in log.read_text()


@pytest.mark.parametrize("alert", ALERTS)
def test_the_commands_about_an_alert_run(terminal, alert):
    assert commands_of(ALERTS[alert])
    check(terminal, "\n".join([FIRST, *commands_of(ALERTS[alert])]), expected=SAYS[alert])


def test_every_alert_is_followed(figure):
    assert list(SAYS) == list(ALERTS) == list(alerts())
    figure(f"O7: sections of the runbook whose commands run verbatim, of {len(alerts())} alerts", len(SAYS))


@pytest.mark.parametrize(
    "command",
    [
        "kubectl get pod another-pod",
        "kubectl get gpus",
        "kubectl get pods --output=yamls",
        "kubectl describe deployment/another",
        "kubectl logs captions-florence2-triton-6c5d8f7b9-x2v7q --tail=many",
        "kubectl scale deployment/captions-florence2-triton --replica=4",
        "kubectl rollout redo deployment/captions-florence2-triton",
        "kubectl delete deployment captions-florence2-triton",
        "kubectl config set-context --current --namespace=default",
        "kubectl exec captions-florence2-triton-6c5d8f7b9-x2v7q -- curl http://127.0.0.1:8003",
        "kubectl port-forward pod/captions-florence2-triton-6c5d8f7b9-x2v7q 28005:8005",
        "kubectl top pods",
        "cd docker && COMPOSE_PROFILES=cpu docker compose logs server-gpu",
        "cd docker && COMPOSE_PROFILES=cpu docker compose stop server-cpu",
        "docker compose ps",
        "helm upgrade captions docker/helm/florence2-triton --reuse-values --set settings.queue_request=512",
        "helm uninstall captions",
    ],
)
def test_a_stand_in_refuses_what_does_not_exist(terminal, command):
    before = len(terminal.calls())
    done = terminal.run(command)
    assert done.returncode != 0
    assert [call[0] for call in terminal.calls()[before:]] == [2], done.stderr
