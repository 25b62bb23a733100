"""The client and the server of an older commit, from the clone's history, in an environment of their own."""

import io
import os
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from florence2_server.tritonserver import Ports

from tests.conftest import ROOT
from tests.server.conftest import wait_until_ready

COMMIT = "0d913e2"  # there is no release yet: the last commit whose server was a folder of Triton's model repository
_PARTS = ("client", "model_repository", "protos")
_STOP_SECONDS = 40


@dataclass(frozen=True)
class PreviousRelease:
    """A checkout of the older commit.

    Attributes:
        folder: the checkout.
        python: an interpreter that imports that commit's client, and otherwise the packages of this environment.
    """

    folder: Path
    python: Path

    @contextmanager
    def serving(self, **environment: str) -> Iterator[Ports]:
        """Run that commit's server until the end of the block. Yields its ports."""
        ports = Ports.free()
        command = [self.python, self.folder / "model_repository" / "serve.py"]
        command += [f"--{name}-port={getattr(ports, name)}" for name in ("http", "grpc", "metrics")]
        with (self.folder / "log.txt").open("wb") as log:
            server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
            try:
                wait_until_ready(ports.grpc)
                yield ports
            finally:
                server.terminate()
                server.wait(_STOP_SECONDS)


def check_out(folder: Path) -> PreviousRelease:
    """Take the older commit from the history of this clone.

    If it is not there, the test is skipped; in CI, whose clones have to be complete, it fails.
    """
    archive = subprocess.run(["git", "-C", ROOT, "archive", COMMIT, *_PARTS], capture_output=True, check=False)
    if archive.returncode:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"commit {COMMIT} is not in the history of this clone: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder / "checkout", filter="data")
    return PreviousRelease(folder / "checkout", _make_environment(folder / "environment", folder / "checkout"))


def _make_environment(folder: Path, checkout: Path) -> Path:
    """Make a virtual environment that finds the checkout's client before all other packages."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "previous.pth").write_text("\n".join([str(checkout / "client"), *_package_folders()]))
    return folder / "bin" / "python"


def _package_folders() -> Sequence[str]:
    """The folders of this environment's packages, without the checkouts that are installed in editable form."""
    return [folder for folder in sys.path if Path(folder).name == "site-packages"]
