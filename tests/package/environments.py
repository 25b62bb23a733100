"""Clean virtual environments, and what is installed into them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

INSTALLER = ROOT / "requirements" / "install.py"


class Environment:
    """A virtual environment of its own, whose commands run outside the checkout.

    Args:
        folder: where it is made.
        working_folder: where its commands run.
    """

    def __init__(self, folder: Path, working_folder: Path) -> None:
        self._bin = folder / "bin"
        self.site_packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        self._working_folder = working_folder
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """The command line of one of its commands."""
        return [os.fspath(self._bin / name), *map(os.fspath, arguments)]

    def run(self, name: str, *arguments: str | Path, **settings: str) -> str:
        """Run one of its commands, which must succeed. Returns standard output and error."""
        done = self.finished(name, *arguments, **settings)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def finished(self, name: str, *arguments: str | Path, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run one of its commands to its end, `settings` added to the environment."""
        return subprocess.run(
            self.command(name, *arguments),
            cwd=self._working_folder,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def start(self, log: Path, name: str, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """Start one of its commands; its output goes to a file."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self.command(name, *arguments), cwd=self._working_folder, stdout=output, stderr=subprocess.STDOUT
            )


def assert_knows_nothing_of_the_checkout(environment: Environment, *modules: str) -> None:
    """Every module comes from the environment's own packages."""
    code = "import importlib, sys; print(*(importlib.import_module(name).__file__ for name in sys.argv[1:]), sep='\\n')"
    files = environment.run("python", "-c", code, *modules).split()
    assert len(files) == len(modules)
    assert all(Path(file).is_relative_to(environment.site_packages) for file in files), files
