"""The command `florence2`.

`florence2 health` is for probes: it imports neither typer nor rich nor PIL, and works without the extra `[cli]`. All
other commands are in `florence2.cli.app`.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from io import TextIOWrapper

from florence2.cli.exits import finished
from florence2.cli.health import health
from florence2.cli.without_extra import without_extra


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its status; `florence2.cli.exits` lists them."""
    # Before gRPC is imported: its own log lines would stand between the command's.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if isinstance(sys.stdout, TextIOWrapper):
        # Characters that the terminal's encoding lacks are escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(finished(lambda: _run(given)))


def _run(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["health"]:
        return health(arguments[1:])
    if find_spec("typer") is None or find_spec("rich") is None:
        return without_extra(arguments)
    from florence2.cli.app import run  # takes longer than a probe

    return run(arguments)
