"""The Python blocks of a page as one program, and the output that the page shows for each."""

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.docs.pages import Block, blocks

_SECONDS = 120
_MARK = "\x1e"
_COORDINATE = re.compile(r"-?\d+\.\d*(?!\w)")
_PIXELS = 3.0  # another machine's arithmetic may choose a neighboring location


def run_page(path: Path, addresses: dict[str, str], folder: Path) -> list[str]:
    """Run a page's Python blocks from top to bottom as one program in `folder`; the output of each.

    The program's lines have the numbers that they have on the page, so that a traceback points there. `addresses` says
    what takes the place of the addresses that the page names.
    """
    lines = [""] * (len(path.read_text().splitlines()) + 1)
    for block in blocks(path, "python"):
        lines[block.line - 2] = f"print({_MARK!r})"  # in place of the fence
        lines[block.line - 1 : block.line - 1 + block.text.count("\n")] = block.text.splitlines()
    code = "\n".join(lines)
    for named, real in addresses.items():
        code = code.replace(named, real)
    for linked in ("examples", "model_repository"):
        (folder / linked).symlink_to(ROOT / linked)
    program = folder / f"page_{path.stem}.py"  # a page may have the name of a package that it imports
    program.write_text(code)
    done = subprocess.run([sys.executable, program], cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(f"{_MARK}\n")[1:]


def shown_outputs(path: Path) -> list[tuple[Block, str | None]]:
    """Each Python block with the output that the page shows after it, if it shows any."""
    following = blocks(path, "python", "text")
    pairs = zip(following, [*following[1:], None], strict=True)
    return [
        (block, after.text if after is not None and after.language == "text" else None)
        for block, after in pairs
        if block.language == "python"
    ]


def is_same(shown: str, printed: str) -> bool:
    """Whether an output is the one shown: the same words and whole numbers, and coordinates that are close."""
    coordinates = [[float(found) for found in _COORDINATE.findall(text)] for text in (shown, printed)]
    words = [_COORDINATE.sub("", text).split() for text in (shown, printed)]
    return (
        words[0] == words[1]
        and len(coordinates[0]) == len(coordinates[1])
        and all(abs(one - other) <= _PIXELS for one, other in zip(*coordinates, strict=True))
    )
