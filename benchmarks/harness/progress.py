"""Progress bars of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunProgress:
    """One bar for the whole run and one for the current measurement.

    Args:
        console: to draw on.
        measurements: number of measurements of the run.
    """

    def __init__(self, console: Console, measurements: int) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._whole = self._bars.add_task("measurements", total=measurements)

    def __enter__(self) -> "RunProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, highlight=False)

    @contextmanager
    def measurement(self, name: str, steps: int) -> Iterator[Callable[[], None]]:
        """Show a bar for one of the run's measurements; yields a function that advances it by one step."""
        with self.preparation(name, steps) as set_done:
            done = iter(range(1, steps + 1))
            yield lambda: set_done(next(done), steps)
        self._bars.advance(self._whole)
        if not self._bars.console.is_terminal:  # a log does not show bars
            self.say(f"{name}: done")

    @contextmanager
    def preparation(self, name: str, steps: int) -> Iterator[Callable[[int, int], None]]:
        """Show a bar for unmeasured preparation; yields a function of the steps done and the total."""
        bar = self._bars.add_task(name, total=steps)
        try:
            yield lambda done, total: self._bars.update(bar, completed=done, total=total)
        finally:
            self._bars.remove_task(bar)
