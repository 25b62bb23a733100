"""The wheels, built once for all tests."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.package.environments import Environment

# Not pytest's own: the environment with torch takes gigabytes, and pytest keeps the folders of three runs.
SCRATCH = ROOT / "build" / "package"


@dataclass(frozen=True)
class Distribution:
    """A package as it is published."""

    sdist: Path
    wheel: Path


def build(source: Path, name: str) -> Distribution:
    """Build the source distribution of a folder, and from that alone the wheel."""
    output = SCRATCH / name
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "build", "--outdir", output, source]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (sdist,), (wheel,) = output.glob("*.tar.gz"), output.glob("*.whl")
    return Distribution(sdist, wheel)


@pytest.fixture(scope="session")
def client_distribution() -> Distribution:
    return build(ROOT, "client")


@pytest.fixture(scope="session")
def server_distribution() -> Distribution:
    return build(ROOT / "server", "server")


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory):
    """Makes a clean environment of a given name, whose commands run in a folder outside the checkout."""

    def make(name: str) -> Environment:
        return Environment(SCRATCH / f"{name}-environment", tmp_path_factory.mktemp(name))

    return make
