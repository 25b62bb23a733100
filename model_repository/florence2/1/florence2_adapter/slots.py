"""How many questions may be with the engine at once."""

import threading
from collections.abc import Callable


class Slots:
    """A semaphore that says how many of it are taken.

    Args:
        count: how many there are.
        on_change: told how many are taken.
    """

    def __init__(self, count: int, on_change: Callable[[int], None]) -> None:
        self._free = threading.Semaphore(count)
        self._on_change = on_change
        self._lock = threading.Lock()
        self._taken = 0

    def take(self) -> None:
        """Take one; blocks until there is one."""
        self._free.acquire()
        self._change(1)

    def give_back(self) -> None:
        """Whoever waits for one longest has it."""
        self._change(-1)
        self._free.release()

    def _change(self, by: int) -> None:
        with self._lock:
            self._taken += by
            self._on_change(self._taken)
