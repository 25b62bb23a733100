"""Where things are, and the real tools that check them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def debian_tool(name: str, package: str) -> str:
    """The path of a command of Debian's; the test that asks is skipped where it is not installed."""
    path = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]))
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return path


def python_tool(name: str) -> str:
    """The path of a command that requirements/development.txt installs."""
    return str(Path(sys.executable).parent / name)


def run(*command: str | Path, **options) -> str:
    """Standard output and error of a command that has to succeed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}"
    return done.stdout
