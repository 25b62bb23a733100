"""How often a call is tried, how long it waits in between, and which endpoint comes next. Knows no gRPC.

Only UNAVAILABLE is tried again: it says that nothing was answered, because the server is full, starting or gone. The
waiting is exponential backoff with full jitter: a random time between 0 and a bound that doubles, so that callers who
were refused together do not come back together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_base

from florence2._arguments import check_integer, check_seconds
from florence2._calls import Call
from florence2.errors import InvalidArgumentError, UnavailableError


@dataclass(frozen=True)
class Retry:
    """How a call is tried again that was answered with UNAVAILABLE. Never beyond the call's timeout."""

    attempts: int = 5
    """The most times that a call is sent, the first included."""
    initial_backoff: float = 0.1
    """Seconds that the first wait has at most; each further one has up to twice as many."""
    max_backoff: float = 5.0
    """Seconds that no wait exceeds."""

    def __post_init__(self) -> None:
        if check_integer("retry.attempts", self.attempts) < 1:
            raise InvalidArgumentError.of_field("retry.attempts", self.attempts, "at least 1")
        for name in ("initial_backoff", "max_backoff"):
            check_seconds(f"retry.{name}", getattr(self, name))


class Attempts:
    """What all calls of a client have in common.

    Each call begins at the endpoint after that of the call before (round robin), and each attempt goes to the next
    endpoint at once (failover); only when all have refused, it waits.

    Args:
        endpoints: how many there are.
        retry: None tries each endpoint once.
    """

    def __init__(self, endpoints: int, retry: Retry | None) -> None:
        self._endpoints = endpoints
        self._attempts = endpoints if retry is None else max(endpoints, retry.attempts)
        self._wait = _FullJitter(endpoints, retry or Retry())
        self._first = itertools.count()

    def endpoints(self) -> Iterator[int]:
        """The endpoints that the attempts of a new call go to."""
        return (number % self._endpoints for number in itertools.count(next(self._first)))

    def policy(self, call: Call) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`.

        Raises:
            DeadlineExceededError: the call's timeout has passed.
        """
        stop: Any = stop_after_attempt(self._attempts)
        if (remaining := call.remaining()) is not None:
            stop |= stop_before_delay(remaining)
        return {
            "stop": stop,
            "wait": self._wait,
            "retry": retry_if_exception_type(UnavailableError),
            "reraise": True,
        }


class _FullJitter(wait_base):
    """No wait while there are endpoints that have not refused the call yet."""

    def __init__(self, endpoints: int, retry: Retry) -> None:
        self._endpoints = endpoints
        self._retry = retry

    def __call__(self, retry_state: RetryCallState) -> float:
        times_refused_by_all, untried = divmod(retry_state.attempt_number, self._endpoints)
        if untried:
            return 0.0
        bound = min(self._retry.max_backoff, self._retry.initial_backoff * 2.0 ** (times_refused_by_all - 1))
        return random.uniform(0, bound)  # noqa: S311 - spreads callers, hides nothing
