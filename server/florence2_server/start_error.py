"""Carries the reason why a model cannot be loaded from its stub to the command that started tritonserver.

Triton logs the reason too, but among other lines; the command repeats it as its last.
"""

import os
from pathlib import Path

from florence2_server.environment import START_ERROR_FILE


def report_start_error(message: str) -> None:
    """Record why this process's model cannot be loaded, for the command that started tritonserver, if one did."""
    if file := os.environ.get(START_ERROR_FILE):
        with Path(file).open("a") as errors:  # several models may fail
            errors.write(f"{' '.join(message.split())}\n")


def read_start_error(file: Path) -> str | None:
    """The first recorded reason, in one line; None if no reason was recorded."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return lines[0] if lines else None
