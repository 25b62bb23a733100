"""What mypy checks."""

import subprocess
import sys
import tomllib
from pathlib import PurePosixPath

from tests.conftest import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def python_files():
    result = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [PurePosixPath(line) for line in result.stdout.splitlines()]


def test_mypy_is_strict_and_checks_every_file_outside_the_tests():
    assert SETTINGS["strict"]
    others = {file for file in python_files() if file.parts[0] not in (*SETTINGS["files"], "tests")}
    # These have one name in common, so that `make lint` checks each by itself.
    assert others == {file for file in python_files() if file.match("model_repository/*/1/model.py")}


def test_mypy_checks_programs_of_users_which_also_run():
    (program,) = [file for file in SETTINGS["files"] if file.startswith("tests/")]
    subprocess.run([sys.executable, ROOT / program], check=True)
