"""Progress on standard error: a bar on a terminal, else a line every ten seconds."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TextIO

from florence2.bulk.outage import Outage
from florence2.bulk.run import Progress

_LINE_SECONDS: Final = 10.0
_DRAW_SECONDS: Final = 0.25


def described(progress: Progress, outage: Outage) -> str:
    """The state of a run in one line: `1,200 of 5,000 done, 3 failed, 41.3 images/s, 0:01:32 left`."""
    done = f"{progress.earlier + progress.done:,}"
    total = "" if progress.total is None else f" of {progress.total:,}"
    left = "" if progress.seconds_left is None else f", {timedelta(seconds=round(progress.seconds_left))} left"
    waiting = "" if outage.reason is None else f"; waiting for a server: {_first_line(outage.reason)}"
    return f"{done}{total} done, {progress.failed:,} failed, {progress.rate:.1f} images/s{left}{waiting}"


@contextmanager
def shown(progress: Progress, outage: Outage, stream: TextIO = sys.stderr) -> Iterator[None]:
    """Show a run's progress while the block runs. Needs a running event loop."""
    show = _show_bar if stream.isatty() and _has_rich() else _print_lines
    showing = asyncio.get_running_loop().create_task(show(progress, outage, stream))
    try:
        yield
    finally:
        showing.cancel()


async def _print_lines(progress: Progress, outage: Outage, stream: TextIO) -> None:
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        print(described(progress, outage), file=stream, flush=True)


async def _show_bar(progress: Progress, outage: Outage, stream: TextIO) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(file=stream)
    with Bar(BarColumn(), TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        while True:
            done = progress.earlier + progress.done
            bar.update(task, total=progress.total, completed=done, description=described(progress, outage))
            await asyncio.sleep(_DRAW_SECONDS)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120]


def _has_rich() -> bool:
    try:
        import rich.progress  # noqa: F401
    except ImportError:
        return False
    return True
