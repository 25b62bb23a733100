"""The import contracts in pyproject.toml: they hold, each of them fails on a violation, and they cover all modules."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = {"florence2": "client", "florence2_server": "server", "benchmarks": ".", "training": "."}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in SETTINGS["contracts"]}
# For each contract, imports that it forbids and the modules to put them in.
VIOLATIONS = [
    ("codec", "florence2.tasks", "import torch"),
    ("codec", "florence2.parsing", "import tritonclient.grpc"),
    ("codec", "florence2.drawing.picture", "from florence2.client import Client"),
    ("client", "florence2.client.base_client", "import florence2_server.settings"),
    ("client-layers", "florence2.transports.protocol", "from florence2.client import Client"),
    ("shipped", "florence2_server.settings", "from training.demo.scenes import draw"),
    ("engine", "florence2_server.engine.limits", "import tritonclient.grpc"),
    ("engine", "florence2_server.engine.images.resizing", "import triton_python_backend_utils"),
    ("engine", "florence2_server.engine.service", "import florence2_server.supervision.supervisor"),
    ("model", "florence2_server.engine.model.linear", "from florence2_server.config import EngineConfig"),
    ("model", "florence2_server.engine.model.linear", "from florence2_server.engine.errors import CheckpointError"),
    ("model", "florence2_server.engine.model.linear", "from florence2.errors import InvalidArgumentError"),
    ("stub", "florence2_server.stub.admission", "import torch"),
    ("stub", "florence2_server.supervision.supervisor", "from florence2_server.engine.errors import CheckpointError"),
    ("triton-utilities", "florence2_server.stub.wire", "import triton_python_backend_utils"),
    ("benchmarks", "benchmarks.harness.load", "from benchmarks.comparison.targets import TARGETS"),
    ("acyclic", "florence2_server.stub.wire", "import florence2_server.stub.dispatcher"),
    ("acyclic", "florence2.errors", "import florence2.client.base_client"),
]


@pytest.fixture
def checkout(tmp_path):
    """A copy of all packages, without their data, and of the contracts."""
    for package, folder in PACKAGES.items():
        shutil.copytree(
            ROOT / folder / package,
            tmp_path / package,
            ignore=lambda _, names: [name for name in names if Path(name).suffix not in ("", ".py")],
            symlinks=True,
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(checkout, *arguments):
    """Run import-linter; its working directory comes before installed packages."""
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache", "--no-logo", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)


def test_all_contracts_hold(checkout):
    result = lint(checkout)
    assert result.returncode == 0, result.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize(("contract", "module", "statement"), VIOLATIONS)
def test_a_forbidden_import_breaks_its_contract_even_inside_a_function(checkout, contract, module, statement):
    file = checkout / Path(*module.split(".")).with_suffix(".py")
    file.write_text(f"{file.read_text()}\n\ndef late():\n    {statement}\n")
    result = lint(checkout, "--contract", contract)
    assert result.returncode == 1
    assert f"{CONTRACTS[contract]['name']} BROKEN" in result.stdout


def test_every_contract_is_shown_to_fail():
    assert {contract for contract, *_ in VIOLATIONS} == set(CONTRACTS)


def test_every_module_of_the_client_belongs_to_the_codec_or_is_forbidden_to_it():
    root = ROOT / "client" / "florence2"
    modules = {path.stem for path in root.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    codec = CONTRACTS["codec"]
    covered = {name.removeprefix("florence2.") for name in codec["source_modules"] + codec["forbidden_modules"]}
    assert modules - {"__init__"} <= covered
