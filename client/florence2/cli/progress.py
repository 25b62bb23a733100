"""Progress on standard error, if it is a terminal and there are several images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_COLUMNS: Final = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())


class ProgressBar:
    """Shows how many images are done, and how long the rest takes.

    Args:
        count: how many images there are.
        is_shown: whether to show anything.
    """

    def __init__(self, count: int, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._bar = Progress(
            *_COLUMNS,
            console=Console(stderr=True),
            # Standard output is the answers'.
            redirect_stdout=False,
            redirect_stderr=False,
            transient=True,
            disable=not is_shown,
        )
        self._task = self._bar.add_task("images", total=count)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to the output of one image, which is then done."""
        self._bar.stop()  # removes the bar
        yield
        self._bar.advance(self._task)
        self._bar.start()


def progress_bar(count: int) -> ProgressBar:
    """A progress bar for `count` images."""
    return ProgressBar(count, is_shown=count > 1 and sys.stderr is not None and sys.stderr.isatty())
