"""Commands of other languages' tools."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import EXAMPLE_SCENE

BUILD_SECONDS = 300


def require(*tools: str) -> None:
    """Skip the test unless the commands and files exist. `.ci/run` lists the packages that have them."""
    missing = [tool for tool in tools if shutil.which(tool) is None and not Path(tool).exists()]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: str | os.PathLike[str], folder: Path, **environment: str) -> str:
    """Run a command in a folder. Returns what it printed; a failure shows that with what it reported."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def server_environment(server) -> dict[str, str]:
    """The environment in which the examples' own tests find a server and an image."""
    return {"FLORENCE2_SERVER": server.grpc_url, "FLORENCE2_IMAGE": str(EXAMPLE_SCENE)}
