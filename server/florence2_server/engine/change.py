"""A change that is made between two of the engine's steps."""

from collections.abc import Callable
from concurrent.futures import Future

import torch


class Change:
    """A change that the engine makes between two steps.

    Args:
        run: makes it.

    Attributes:
        done: done when it is made.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.done: Future[None] = Future()

    def make(self) -> None:
        """Make it; its error is raised where `done` is awaited."""
        try:
            self._run()
        except torch.AcceleratorError as error:
            self.done.set_exception(error)
            raise
        except Exception as error:  # noqa: BLE001
            self.done.set_exception(error)
        else:
            self.done.set_result(None)
