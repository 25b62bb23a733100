"""Paths, the rendered chart, and the real tools that check what is deployed."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.kubernetes.cases import CHART, NAME, NAMESPACE, PINNED, Object, merged
from tests.deploy.kubernetes.rendering import Release, manifests

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def debian_tool(name: str, package: str) -> str:
    """Return the path of a command from Debian's packages; skip the test if it is not installed."""
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return path


def python_tool(name: str) -> str:
    """Return the path of a command that requirements/development.txt installs."""
    return str(Path(sys.executable).parent / name)


def run(*command: str | Path, **options) -> str:
    """Run a command that must succeed. Returns standard output and error."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def render():
    """Renders the chart with given values; each set of values is rendered once."""
    import helm_python

    chart = helm_python.Chart.load(CHART)

    @functools.cache
    def rendered(values: str, name: str) -> Release:
        return Release(json.loads(values), manifests(chart.render(json.loads(values), name=name, namespace=NAMESPACE)))

    def render(values: Object, name: str = NAME) -> Release:
        return rendered(json.dumps(merged(PINNED, values), sort_keys=True), name)

    yield render
    chart.close()
