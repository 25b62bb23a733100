"""Runs a notebook's code cells: `python -m tests.examples.notebook FILE` stores their outputs in it.

Only what our notebooks use: plain Python, printed text, and the value of a cell's last expression as text or as a PIL
image.
"""

import ast
import base64
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import PIL.Image


class _Printed(io.StringIO):
    """What a cell prints.

    Args:
        shown: where it also appears at once; None for nowhere.
    """

    def __init__(self, shown: TextIO | None) -> None:
        super().__init__()
        self._shown = shown

    def write(self, text: str) -> int:
        if self._shown is not None:
            self._shown.write(text)
            self._shown.flush()
        return super().write(text)


def run_cells(path: Path, shown: TextIO | None = None) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, run in the notebook's folder, in the notebook format.

    Args:
        path: the notebook.
        shown: where the printed text also appears as the cells run.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    with contextlib.chdir(path.parent):
        return [_run("".join(cell["source"]), names, number, shown) for number, cell in enumerate(cells, 1)]


def store_outputs(path: Path) -> None:
    """Run the notebook, print what its cells print, and write the outputs into it."""
    notebook = json.loads(path.read_text())
    outputs = iter(run_cells(path, sys.stdout))
    code_cells = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    for number, cell in enumerate(code_cells, 1):
        cell["execution_count"], cell["outputs"] = number, next(outputs)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + os.linesep)


def _run(source: str, names: dict[str, Any], number: int, shown: TextIO | None) -> list[dict[str, Any]]:
    module = ast.parse(source)
    last = module.body.pop() if module.body and isinstance(module.body[-1], ast.Expr) else None
    printed, value = _Printed(shown), None
    with contextlib.redirect_stdout(printed):
        exec(compile(module, f"cell {number}", "exec"), names)  # noqa: S102 - the notebook is ours
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        data = {"data": _shown(value), "execution_count": number, "metadata": {}}
        outputs.append({"output_type": "execute_result", **data})
    return outputs


def _shown(value: object) -> dict[str, Any]:
    if isinstance(value, PIL.Image.Image):
        file = io.BytesIO()
        value.save(file, "PNG")
        return {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": [f"<image {value.size}>"]}
    return {"text/plain": repr(value).splitlines(keepends=True)}


if __name__ == "__main__":
    store_outputs(Path(sys.argv[1]).resolve())
