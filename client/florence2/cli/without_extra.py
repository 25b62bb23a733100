"""The command `florence2` without the extra `[cli]`: `health` alone."""

from collections.abc import Sequence

from florence2.cli.exits import MISUSED, SUCCEEDED, complain

_INSTALL = 'pip install "florence2-triton[cli]"'
_HELP = f"""Usage: florence2 COMMAND [OPTIONS]

Florence-2 on Triton.

Commands:
  health  check a server, the model and the engine: exit status 0 if healthy, else 1

The commands for images, such as `florence2 detect street.jpg`, need: {_INSTALL}"""


def without_extra(arguments: Sequence[str]) -> int:
    """Show the help, or say what to install."""
    if not arguments or arguments[0] in ("--help", "-h"):
        print(_HELP)  # noqa: T201 - what the option is for
        return SUCCEEDED if arguments else MISUSED
    complain(f"`florence2 {arguments[0]}` needs typer and rich, run: {_INSTALL}")
    return MISUSED
