"""The notebook about fine-tuning runs, and the outputs stored in it show what it promises."""

import json
import re

import pytest

from tests.conftest import ROOT
from tests.examples.notebook import run_cells

NOTEBOOK = ROOT / "examples" / "finetune.ipynb"


@pytest.fixture
def few_steps(monkeypatch, tmp_path):
    monkeypatch.setenv("FINETUNE_DEMO_QUICK", str(tmp_path / "finetune-demo"))


def printed(outputs) -> str:
    return "".join("".join(output.get("text", [])) for cell in outputs for output in cell)


@pytest.mark.usefixtures("few_steps")
def test_the_notebook_runs_with_a_few_steps():
    text = printed(run_cells(NOTEBOOK))
    assert "step 4 of 4  evaluation" in text
    assert re.search(r"base +0\.0% of 16\nfine-tune +[\d.]+% of 16", text)


def test_the_stored_outputs_show_a_question_learned():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    text = printed(cell["outputs"] for cell in cells)
    before, after = (
        float(re.search(rf"^{name} +([\d.]+)% of 500$", text, re.MULTILINE)[1]) for name in ("base", "fine-tune")
    )
    assert before <= 5
    assert after >= 90
    example = re.search(r"'answer': '(\w+)'", text)[1]
    assert "'A red circle, a green triangle and a blue square.'" in re.search(r"^base +'.*$", text, re.MULTILINE)[0]
    assert re.search(rf"^fine-tune +'{example}'", text, re.MULTILINE)
    assert len(re.findall("most frequent answer", text)) == 3
    assert all(float(share) <= 30 for share in re.findall(r"most frequent answer (\d+) %", text))
