import ast
import importlib.metadata
import itertools
import subprocess
import sys
from pathlib import Path

import florence2
import florence2.client
import pytest

PUBLIC_NAMES = {
    *("Client", "AsyncClient", "Answer", "TruncatedAnswerError", "TLS", "Health", "Keepalive", "Retry", "errors", "v1"),
    *("ServerInfo", "EngineInfo", "MapOutcome"),
    *("StepAnswer", "StepStarted", "TextDelta", "ItemFound", "StepFinished", "Finished"),
    *("AnalyzedRegion", "GroundedCaption", "PlanResult", "RegionAnalysis", "TaskResults"),
    *("TASKS", "Task", "render_prompt", "expand_prompt"),
    *("decode", "draw", "Result", "Text", "Detections", "Segmentation", "TextRegions", "TokenScores"),
}


def test_the_public_names_are_these_and_no_more():
    assert set(florence2.__all__) == PUBLIC_NAMES
    assert dir(florence2) == sorted(PUBLIC_NAMES)


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_every_public_name_exists(name):
    assert getattr(florence2, name) is not None


def test_the_version_is_that_of_the_installed_package():
    assert florence2.__version__ == importlib.metadata.version("florence2-triton")


def test_the_clients_are_those_of_the_client_package():
    assert florence2.Client is florence2.client.Client
    assert florence2.AsyncClient is florence2.client.AsyncClient


def test_other_names_do_not_exist():
    with pytest.raises(AttributeError, match="module 'florence2' has no attribute 'Clients'"):
        florence2.Clients  # noqa: B018  # the access is what raises


@pytest.mark.parametrize(
    "module",
    ["florence2", "florence2.tasks", "florence2.prompts", "florence2.parsing", "florence2.messages", "florence2.v1"],
)
def test_the_codec_needs_neither_torch_nor_grpc(module):
    heavy = ("torch", "transformers", "tritonclient", "grpc")
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_importing_every_module_loads_neither_server_nor_torch():
    program = """
import pkgutil, sys, florence2
for module in pkgutil.walk_packages(florence2.__path__, "florence2."):
    __import__(module.name)
print([name for name in ("florence2_server", "torch", "transformers", "tritonserver") if name in sys.modules])
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_no_module_imports_server_or_torch_even_lazily():
    sources = sorted(Path(florence2.__file__).parent.rglob("*.py"))
    trees = [ast.parse(source.read_text()) for source in sources]
    assert len(trees) > 20
    for node in itertools.chain.from_iterable(map(ast.walk, trees)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & {"florence2_server", "torch", "transformers"}
