"""Stand-ins for commands that need Docker, a cluster or the hub: they record how they were called."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.conftest import ROOT

STAND_INS = ("docker", "kubectl", "helm", "apt-get", "florence2-server")
_RECORD = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([os.getcwd(), os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""
# Says what make would do, and fails for a target that the Makefile does not have.
_DRY_MAKE = '#!/bin/sh\nexec {make} --dry-run "$@" > /dev/null\n'
# The real command, which is on the PATH only in an activated environment.
_CLIENT_COMMAND = "#!{python}\nfrom {module} import {function}\n{function}()\n"
# In an activated environment, `python` is this interpreter.
_PYTHON = '#!/bin/sh\nexec {python} "$@"\n'
_SECONDS = 60


@dataclass(frozen=True)
class Call:
    """How a stand-in was called."""

    folder: Path
    command: str
    arguments: list[str]

    def values(self, *flags: str) -> list[str]:
        """What follows each of these flags."""
        pairs = zip(self.arguments, self.arguments[1:], strict=False)
        return [value for flag, value in pairs if flag in flags]


def run_shell(script: str, folder: Path, **variables: str) -> tuple[list[Call], str]:
    """Run a block at the repository's root with stand-ins first on the PATH: their calls, and the block's output."""
    log = folder / "calls"
    log.touch()
    scripts = dict.fromkeys(STAND_INS, _RECORD.format(python=sys.executable, log=str(log)))
    scripts["make"] = _DRY_MAKE.format(make=shutil.which("make"))
    scripts["python"] = _PYTHON.format(python=sys.executable)
    entry_point = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["florence2"]
    module, function = entry_point.split(":")
    scripts["florence2"] = _CLIENT_COMMAND.format(python=sys.executable, module=module, function=function)
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = {**os.environ, **variables, "PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    return [Call(Path(cwd), name, arguments) for cwd, name, *arguments in calls], done.stdout


def check(call: Call) -> None:
    """Fail if a stand-in was called with a file, a profile or a value that does not exist."""
    assert call.arguments, call
    for file in call.values("--file", "-f"):
        assert (call.folder / file).is_file(), file
    if call.command == "docker":
        _check_docker(call)
    elif call.command == "helm":
        _check_helm(call)
    elif call.command == "florence2-server":
        commands = ("serve", "health", "repository", "adapters", "check", "convert", "fetch")
        assert call.arguments[0] in commands, call


def _check_docker(call: Call) -> None:
    assert call.arguments[0] in ("build", "compose", "push"), call
    if call.arguments[0] == "build":
        assert (call.folder / call.arguments[-1]).samefile(ROOT), "the images' build context is the repository"
    if call.arguments[0] == "compose":
        services = yaml.safe_load((call.folder / "compose.yaml").read_text())["services"].values()
        profiles = {profile for service in services for profile in service.get("profiles", [])}
        assert set(call.values("--profile")) <= profiles, call


def _check_helm(call: Call) -> None:
    assert call.arguments[0] == "install", call
    values = yaml.safe_load((call.folder / call.arguments[2] / "values.yaml").read_text())
    for setting in call.values("--set", "--set-string"):
        found = values
        for key in setting.partition("=")[0].split("."):
            assert key in found, setting
            found = found[key]
