"""Writes pictures of the command's output on a terminal, for docs/commands.md: `make screenshots`.

Each command runs on a pseudo-terminal, and rich turns what it shows into SVG.
"""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

_ROOT: Final = Path(__file__).resolve().parents[1]
_COLUMNS: Final = 80
_ROWS: Final = 50
_COMMAND: Final = [sys.executable, "-c", "from florence2.cli import main; main()"]
# In this process, so that no server has to run. The pictures show the same commands for a server.
_IN_PROCESS: Final = ["--checkpoint", "model_repository/florence2/demo_checkpoint"]
_PICTURES: Final = {
    "command-tables.svg": [
        ["detect", "examples/scene.png"],
        ["read", "--regions", "examples/scene.png"],
        ["analyze", "examples/scene.png"],
    ],
}


def main() -> None:
    """Write all pictures."""
    for name, lines in _PICTURES.items():
        console = Console(record=True, width=_COLUMNS, file=Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
        for line in lines:
            console.print(Text(f"$ florence2 {' '.join(line)}", style="bold green"))
            console.print(Text.from_ansi(_shown([*line, *_IN_PROCESS])))
        (_ROOT / "docs" / name).write_text(_without_downloads(console.export_svg(title="florence2")))


def _shown(line: list[str]) -> str:
    """What a command shows on a terminal."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (_ROWS, _COLUMNS))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(_COLUMNS), "TQDM_DISABLE": "1"}
    with subprocess.Popen([*_COMMAND, *line], stdout=terminal, stderr=terminal, cwd=_ROOT, env=environment) as process:
        os.close(terminal)
        shown = b""
        while part := _read(controller):
            shown += part
    os.close(controller)
    if process.returncode:
        raise SystemExit(shown.decode())
    return shown.decode().replace("\r\n", "\n")


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:  # Linux, once no process has the terminal open
        return b""


def _without_downloads(svg: str) -> str:
    """The picture with the viewer's own fonts: rich names those of a content delivery network."""
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    main()
