"""How commands end: exit statuses, and errors in one line on standard error."""

import os
import re
import sys
from collections.abc import Callable
from typing import Final

from florence2.errors import Florence2Error, UnavailableError

SUCCEEDED: Final = 0
FAILED: Final = 1
"""An image has no answer, or the output cannot be written."""
MISUSED: Final = 2
"""The command line is wrong, or something that it needs is not installed."""
UNREACHABLE: Final = 3
"""No server can be reached, or it stayed unavailable until an image's timeout."""
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141
"""The program that reads the output ended first, as `head` does. Shells report the same after SIGPIPE."""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class CommandError(Exception):
    """The command cannot go on. The message is for the person at the terminal."""

    def __init__(self, message: str, status: int = MISUSED) -> None:
        super().__init__(message)
        self.status = status


def finished(command: Callable[[], int]) -> int:
    """Run a command to its end. Returns its exit status."""
    if sys.stderr is None:  # closed: what a command opens must not take its number, and become the log of a library
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - to the end of the process
    try:
        try:
            return command()
        finally:
            # Flushed here, because an error of the interpreter's own flush could not be caught.
            if sys.stdout is not None:
                sys.stdout.flush()
    except CommandError as error:
        complain(str(error))
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        _discard_output()
        complain(f"standard output: {reason(error)}")
        return FAILED


def complain(line: str) -> None:
    """Print a line to standard error, after the command's name."""
    print(f"florence2: {visible(' '.join(line.split()))}", file=sys.stderr)  # noqa: T201 - what a command is for


def visible(text: str) -> str:
    """A text, e.g. a file's name, with its control characters escaped, which could change the terminal or the line."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def reason(error: Exception) -> str:
    """An error without the path that an OSError repeats."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def status_of(error: Exception | None) -> int:
    """The exit status of a command for one image's error; None: it has an answer."""
    if error is None:
        return SUCCEEDED
    if isinstance(error, UnavailableError):
        return UNREACHABLE
    assert isinstance(error, Florence2Error | OSError), "everything else is a bug, and raised"
    return FAILED


def _discard_output() -> None:
    """Discard what is still buffered, so that the interpreter's flush at exit succeeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
