"""What the README tells a reader to run, run."""

import json
import re
import subprocess
import sys

import florence2
import pytest
from florence2_adapter.config import LogConfig, RequestLimits, SupervisionConfig
from florence2_engine.config import EngineConfig

from tests.conftest import ROOT
from tests.server.conftest import CALL_SECONDS

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_the_client_code_runs(server, tmp_path):
    (code,) = blocks("python")
    code = code.replace("localhost:8001", server.grpc_url).replace("found.png", str(tmp_path / "found.png"))
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=CALL_SECONDS
    ).stdout
    assert len(shown.splitlines()) >= 3
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_the_curl_command_runs(server):
    (command,) = [block for block in blocks("sh") if "curl" in block]
    command = command.replace("localhost:8000", server.http_url)
    answer = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, check=True, timeout=CALL_SECONDS
    ).stdout
    assert json.loads(json.loads(answer)["RESPONSE"])["detections"]["detections"]


def test_every_target_named_is_in_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README + (ROOT / "CONTRIBUTING.md").read_text()))
    assert named <= targets, named - targets


def test_the_task_table_is_the_projects():
    rows = re.findall(r"^\| `(\w+)\(.*?\)` \| `(\w+)` \| `(<\w+>)` \|.*\| `(\w+)` \|$", README, flags=re.MULTILINE)
    assert {(field, token) for _, field, token, _ in rows} == {(task.name, task.token) for task in florence2.TASKS}
    for method, _, _, result in rows:
        assert getattr(florence2.Client, method).__annotations__["return"] is getattr(florence2, result)


def test_the_settings_table_is_the_projects():
    rows = dict(re.findall(r"^\| `FLORENCE2_(\w+)` \| `?([^|`]+)`? \|", README, flags=re.MULTILINE))
    settings = (
        vars(EngineConfig(checkpoint="the demo checkpoint"))
        | vars(RequestLimits())
        | vars(LogConfig())
        | vars(SupervisionConfig())
    )
    assert {name.lower(): value.strip() for name, value in rows.items()} == {
        name: str(value) for name, value in settings.items()
    }


def test_the_figures_are_those_of_the_checkpoint():
    figures = json.loads((ROOT / "model_repository/florence2/demo_checkpoint/figures.json").read_text())["figures"]
    rows = dict(re.findall(r"^\| `(<\w+>)` \| [^|]+ \| ([0-9.]+) \|", README, flags=re.MULTILINE))
    assert rows == {figure["task"]: f"{figure['value']:.3f}" for figure in figures}


@pytest.mark.parametrize("path", re.findall(r"`((?:client|model_repository|tests|examples|protos)/[\w./]+)`", README))
def test_every_path_named_exists(path):
    assert (ROOT / path).exists()
