"""The notebook of the in-process transport runs, and its outputs are what it shows."""

import json

from tests.conftest import ROOT
from tests.examples.notebook import run_cells, store_outputs

NOTEBOOK = ROOT / "examples" / "in_process.ipynb"


def test_the_notebook_gives_the_outputs_that_are_stored_in_it():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    for cell, outputs in zip(cells, run_cells(NOTEBOOK), strict=True):
        assert cell["outputs"] == outputs, "".join(cell["source"])


def test_a_stored_run_prints_what_its_cells_print(tmp_path, capsys):
    notebook, sources = tmp_path / "a.ipynb", ["print('one')", "1 + 1"]
    notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [source]} for source in sources]}))
    store_outputs(notebook)
    assert capsys.readouterr().out == "one\n"
    printed, value = (cell["outputs"][0] for cell in json.loads(notebook.read_text())["cells"])
    assert printed["text"] == ["one\n"]
    assert value["data"] == {"text/plain": ["2"]}
