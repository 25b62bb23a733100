"""Outages of the servers, during which a run waits."""

import asyncio
import random
import time
from typing import Final

from florence2.errors import Florence2Error

_FIRST_SECONDS: Final = 0.2
_MOST_SECONDS: Final = 5.0


class GaveUpError(Florence2Error):
    """No server has answered for too long, or the servers deny access or lack the model."""


class Outage:
    """How long no server has answered.

    Args:
        give_up_seconds: after which the run ends.
    """

    def __init__(self, give_up_seconds: float) -> None:
        self._give_up_seconds = give_up_seconds
        self._since = 0.0  # seconds of time.monotonic(), if there is a reason
        self.has_answered = False
        """Whether a server has answered in this run."""
        self.reason: Florence2Error | None = None
        """The last error, while no server answers."""

    def end(self) -> None:
        """Note an answer: results, or an error of the image."""
        self.has_answered = True
        self.reason = None

    async def wait(self, error: Florence2Error, attempt: int) -> None:
        """Wait before the next attempt: exponential backoff with jitter.

        Args:
            error: of this attempt.
            attempt: the number of attempts of this request, from 1.

        Raises:
            GaveUpError: no server has answered for too long.
        """
        if self.reason is None:  # before, nothing may have been sent: reading images takes time, too
            self._since = time.monotonic()
        self.reason = error
        silent = time.monotonic() - self._since
        remaining = self._give_up_seconds - silent
        if remaining <= 0:
            raise GaveUpError(f"no server has answered for {silent:.0f} s: {error}") from error
        await asyncio.sleep(min(remaining, backoff_seconds(attempt)))


def backoff_seconds(attempt: int) -> float:
    """How long to wait after an attempt, counted from 1."""
    most = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(attempt - 1, 10))
    return random.uniform(most / 2, most)  # noqa: S311 - spreads requests, hides nothing
