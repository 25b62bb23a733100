"""How far a long loop is: when a line about it is due, and how long the rest will take."""

from __future__ import annotations

import time

SILENCE = 10.0
"""Seconds without a line after which one about the progress is due."""

_MINUTE, _HOUR = 60, 3600
_UNITS_FROM = 1.5  # so many minutes are said in minutes, so many hours in hours


class Pace:
    """The pace of a loop, from the moment when this is made.

    Args:
        total: the number of iterations.
        done: how many of them an earlier process made.
        silence: seconds without a line after which one is due.
    """

    def __init__(self, total: int, done: int = 0, silence: float = SILENCE) -> None:
        self._total = total
        self._first = done
        self._silence = silence
        self._start = self._last_line = time.monotonic()

    def is_due(self) -> bool:
        """Whether a line is due. The caller then logs one."""
        now = time.monotonic()
        if now - self._last_line < self._silence:
            return False
        self._last_line = now
        return True

    def has_logged(self) -> None:
        """Note that the caller has logged a line that was not due."""
        self._last_line = time.monotonic()

    def left(self, done: int) -> str:
        """The estimated time for the rest, `3 min left`, if `done` iterations are done; empty if it is unknown or 0."""
        if not self._first < done < self._total:
            return ""
        seconds = (time.monotonic() - self._start) / (done - self._first) * (self._total - done)
        return f"{_duration(seconds)} left"


def _duration(seconds: float) -> str:
    if seconds < _UNITS_FROM * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _UNITS_FROM * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
