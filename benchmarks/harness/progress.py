"""What a run shows while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class RunProgress:
    """Bars for the run's measurements and for the answers of the one under way.

    Args:
        console: where they are drawn.
        measurements: of the whole run.
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
        """A line above the bars."""
        self._bars.console.print(text, highlight=False)

    @contextmanager
    def measurement(self, name: str, answers: int) -> Iterator[Callable[[], None]]:
        """A bar for one of the run's measurements; what it gives advances it by an answer."""
        with self.preparation(name, answers) as set_done:
            done = iter(range(1, answers + 1))
            yield lambda: set_done(next(done), answers)
        self._bars.advance(self._whole)
        if not self._bars.console.is_terminal:  # in a log bars are not seen
            self.say(f"{name}: done")

    @contextmanager
    def preparation(self, name: str, steps: int) -> Iterator[Callable[[int, int], None]]:
        """A bar for work that is not measured; what it gives is told how many steps of how many are done."""
        bar = self._bars.add_task(name, total=steps)
        try:
            yield lambda done, total: self._bars.update(bar, completed=done, total=total)
        finally:
            self._bars.remove_task(bar)
