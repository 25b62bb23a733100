"""Every Python block runs, against a real server or in process, and prints what the page shows."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import DEMO_CHECKPOINT, ROOT
from tests.docs.pages import PAGES, blocks, name
from tests.docs.programs import is_same, run_page, shown_outputs

NOTEBOOK = ROOT / "docs" / "notebook.md"
ADAPTERS = ROOT / "docs" / "adapters.md"
# The chart's README addresses a cluster, and the pages about Ray and OpenAI's API need their packages:
# tests/deploy/kubernetes, tests/bulk/distributed and tests/web run their blocks.
ELSEWHERE = (
    NOTEBOOK,
    ADAPTERS,
    *(ROOT / "docs" / page for page in ("ray.md", "openai.md")),
    ROOT / "docker" / "helm" / "florence2-triton" / "README.md",
)
ON_A_SERVER = [page for page in PAGES if blocks(page, "python") and page not in ELSEWHERE]


@pytest.mark.parametrize("page", ON_A_SERVER, ids=name)
def test_the_code_of_a_page_prints_what_the_page_shows(page, server, tmp_path):
    addresses = dict.fromkeys(("localhost:8001", "triton-a:8001", "triton-b:8001"), server.grpc_url)
    check_outputs(page, run_page(page, addresses, tmp_path))


def test_the_notebook_prints_what_it_shows_without_a_server(tmp_path):
    check_outputs(NOTEBOOK, run_page(NOTEBOOK, {}, tmp_path))


def test_the_page_about_adapters_prints_what_it_shows_with_two_untrained_ones(tmp_path):
    adapters = {name: save_untrained_adapter(tmp_path / name) for name in ("invoices", "tags")}
    in_process = f"__import__('florence2_server.in_process').in_process.InProcess(adapters={adapters})"
    folder = tmp_path / "page"
    folder.mkdir()
    check_outputs(ADAPTERS, run_page(ADAPTERS, {'"localhost:8001"': f"transport={in_process}"}, folder))


def save_untrained_adapter(folder: Path) -> str:
    """A LoRA adapter of the demo checkpoint as peft initializes it, with which answers are the checkpoint's own."""
    width = json.loads((DEMO_CHECKPOINT / "config.json").read_text())["text_config"]["d_model"]
    layer = "base_model.model.model.language_model.decoder.layers.0.self_attn.q_proj"
    folder.mkdir()
    factors = {"lora_A": torch.ones(2, width), "lora_B": torch.zeros(width, 2)}
    save_file(
        {f"{layer}.{name}.weight": factor for name, factor in factors.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
    return str(folder)


def check_outputs(page: Path, printed: list[str]) -> None:
    """Compare what each block printed with what the page shows."""
    shown = shown_outputs(page)
    assert len(printed) == len(shown)
    for (block, expected), output in zip(shown, printed, strict=True):
        assert is_same(expected or "", output), f"{block}\n{output}"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("dog [ 53. 60.5]\n", "dog [54. 60.]\n", True),
        ("dog [53. 60.]", "dog [53. 70.]", False),
        ("dog [53. 60.]", "dog [53. 60. 61.]", False),
        ("14 tokens", "15 tokens", False),
        ("a dog", "a cat", False),
    ],
)
def test_outputs_are_compared_by_words_and_rounded_coordinates(shown, printed, same):
    assert is_same(shown, printed) is same
