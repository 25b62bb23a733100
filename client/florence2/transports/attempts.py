"""Which server each attempt of a request goes to, and how long the request waits before the next attempt.

Only `UnavailableError` is retried: nothing was answered, because the server is full, starting, stopping or unreachable.
Retries wait by exponential backoff with full jitter: a random time between 0 and a bound that doubles, so that clients
that were rejected together do not retry together
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).

Among several servers, one that failed is avoided for a while, as by a circuit breaker: after the same backoff, a single
request probes it, and the others avoid it until the probe has succeeded.
"""

import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception_type

from florence2.errors import DeadlineExceededError, Florence2Error, RequestCancelledError, UnavailableError
from florence2.transports.destination import LAST_RECONNECT_SECONDS, Retry
from florence2.transports.protocol import RequestContext

UNLIMITED_SECONDS: Final = 60.0
"""How long a request without a deadline is retried, counted from its first failure. Without a limit, a wrong address
would hang a program instead of raising an error."""

_SHORTEST_REST: Final = 0.1  # seconds before the deadline after which another attempt is pointless
_MOST_DOUBLINGS: Final = 32  # 2.0 to a higher power could overflow

# An untrusted certificate will stay untrusted. The request may go to another server, but it does not wait.
_PERMANENT: Final = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")

_logger = logging.getLogger(__name__)
_Value = TypeVar("_Value")


@dataclass
class _Endpoint:
    """The state of a server, as seen by this client."""

    failures: int = 0
    """The number of failures in a row."""
    failed_at: float = -math.inf
    """When the last of them was seen. The outcomes of attempts that began earlier are ignored."""
    avoided_until: float = -math.inf


class Attempts:
    """The attempts of all requests of a client, which may run in several threads.

    Each request starts at the server after that of the previous request (round robin). Each attempt goes to the next
    server at once (failover), and a request waits only after all of them have rejected it, except for those that are
    avoided. If all are avoided, it goes to the one that is due next.

    Args:
        names: names of the servers, for the log.
        retry: None tries each server once.
    """

    def __init__(self, names: Sequence[str], retry: Retry | None) -> None:
        self._names = tuple(names)
        self._backoff = retry or Retry()
        self._limit = None if retry is None or retry.attempts is None else max(len(names), retry.attempts)
        self._is_single_round = retry is None
        self._memory = [_Endpoint() for _ in names]
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def run(self, context: RequestContext, sleep: Callable[[float], None], attempt: Callable[[int], _Value]) -> _Value:
        """Call `attempt` with the number of a server until it raises no `UnavailableError`.

        Raises:
            DeadlineExceededError: the request's timeout has passed.
            UnavailableError: there is no time, or no attempt, left. The message has the last reason.
        """
        request = _RequestAttempts(self, context)

        def act() -> _Value:
            with request.attempt() as endpoint:
                return attempt(endpoint)

        return Retrying(**request.policy(), sleep=sleep)(act)

    async def run_async(
        self,
        context: RequestContext,
        sleep: Callable[[float], Awaitable[None]],
        attempt: Callable[[int], Awaitable[_Value]],
    ) -> _Value:
        """As `run`."""
        request = _RequestAttempts(self, context)

        async def act() -> _Value:
            with request.attempt() as endpoint:
                return await attempt(endpoint)

        return await AsyncRetrying(**request.policy(), sleep=sleep)(act)

    def bound(self, failures: int) -> float:
        """The upper bound of a wait in seconds, after a number of failures."""
        doublings = min(failures - 1, _MOST_DOUBLINGS)
        return min(self._backoff.max_backoff, self._backoff.initial_backoff * 2.0**doublings)

    def next_number(self) -> int:
        """The number of a new request, for round robin."""
        return next(self._numbers)

    def choose(self, number: int, tried: Set[int]) -> int:
        """The server for an attempt of the request with that number, which `tried` have rejected in this round."""
        with self._lock:
            now = time.monotonic()
            candidates = [endpoint for endpoint in range(len(self._memory)) if endpoint not in tried]
            due = [endpoint for endpoint in candidates if self._memory[endpoint].avoided_until <= now]
            if due:
                chosen = due[number % len(due)]
            else:
                chosen = min(candidates or range(len(self._memory)), key=lambda each: self._memory[each].avoided_until)
            memory = self._memory[chosen]
            if memory.failures:  # this attempt is the probe
                memory.avoided_until = now + self.bound(memory.failures)
            return chosen

    def has_next(self, tried: Set[int]) -> bool:
        """Whether a request that `tried` have rejected goes to another server at once."""
        with self._lock:
            now = time.monotonic()
            return any(
                endpoint not in tried and (self._is_single_round or memory.avoided_until <= now)
                for endpoint, memory in enumerate(self._memory)
            )

    def is_exhausted(self, count: int) -> bool:
        """Whether a request has no attempt left, after a full round and `count` attempts in all."""
        return self._is_single_round or (self._limit is not None and count >= self._limit)

    def succeeded(self, endpoint: int, started: float) -> None:
        """Remember that a server responded to an attempt."""
        with self._lock:
            memory = self._memory[endpoint]
            if memory.failures and started >= memory.failed_at:
                memory.failures, memory.avoided_until = 0, -math.inf
                _logger.info("%s responds again", self._names[endpoint])

    def failed(self, endpoint: int, started: float, error: Florence2Error) -> None:
        """Remember that a server rejected an attempt, or did not respond to it."""
        with self._lock:
            memory = self._memory[endpoint]
            if started < memory.failed_at:
                return
            memory.failures += 1
            memory.failed_at = time.monotonic()
            bound = self.bound(memory.failures)
            pause = random.uniform(bound / 2, bound)  # noqa: S311 - spreads clients, hides nothing
            memory.avoided_until = memory.failed_at + pause
        _logger.info("%s failed, and is avoided for %.2f s: %s", self._names[endpoint], pause, error)


class _RequestAttempts:
    """The attempts of one request."""

    def __init__(self, attempts: Attempts, context: RequestContext) -> None:
        self._attempts = attempts
        self._context = context
        self._number = attempts.next_number()
        self._tried: set[int] = set()
        self._count = 0
        self._rounds = 0
        self._is_round_over = False
        self._begun = self._sent = time.monotonic()
        self._give_up_at = math.inf if context.timeout is None else context.started + context.timeout
        self._reason: UnavailableError | None = None

    @contextmanager
    def attempt(self) -> Iterator[int]:
        """Choose a server, and remember how the attempt in the `with` block ends."""
        self._context.require_wanted()
        self._context.remaining()
        endpoint = self._attempts.choose(self._number, self._tried)
        self._tried.add(endpoint)
        self._count += 1
        self._sent = time.monotonic()
        try:
            yield endpoint
        except UnavailableError as error:
            self._attempts.failed(endpoint, self._sent, error)
            self._reason = error
            raise
        except DeadlineExceededError as error:
            self._attempts.failed(endpoint, self._sent, error)
            if self._reason is None:
                raise
            raise _reworded(error, f"{error}; the attempt before failed with: {self._reason}") from error
        except RequestCancelledError:
            raise
        except Florence2Error:
            self._attempts.succeeded(endpoint, self._sent)
            raise
        else:
            self._attempts.succeeded(endpoint, self._sent)

    def policy(self) -> dict[str, Any]:
        """Arguments of tenacity's `Retrying` and `AsyncRetrying`."""
        return {
            "wait": self._wait,
            "stop": self._must_stop,
            "retry": retry_if_exception_type(UnavailableError),
            "before_sleep": self._report_refusal,
            "retry_error_callback": self._fail,
        }

    def _wait(self, state: RetryCallState) -> float:  # noqa: ARG002 - tenacity's signature
        """Seconds until the next attempt: none if there is a server left."""
        assert self._reason is not None, "the attempt failed"
        self._is_round_over = not self._attempts.has_next(self._tried)
        if not self._is_round_over:
            return 0.0
        now = time.monotonic()
        if self._context.timeout is None:
            self._give_up_at = min(self._give_up_at, now + UNLIMITED_SECONDS)
        self._rounds += 1
        self._tried.clear()
        bound = self._attempts.bound(self._rounds)
        if not self._reason.is_refusal:
            # A server that cannot be reached receives nothing, so there is no load to reduce.
            bound = min(bound, LAST_RECONNECT_SECONDS)
        # At most half of the time that is left, so that the last attempts come close to the deadline.
        return min(random.uniform(0, bound), max(0.0, self._give_up_at - now) / 2)  # noqa: S311 - as above

    def _must_stop(self, state: RetryCallState) -> bool:  # noqa: ARG002 - tenacity's signature
        rest = self._give_up_at - time.monotonic()
        if not self._is_round_over:
            return rest <= 0
        is_permanent = any(words in str(self._reason) for words in _PERMANENT)
        return is_permanent or rest < _SHORTEST_REST or self._attempts.is_exhausted(self._count)

    def _report_refusal(self, state: RetryCallState) -> None:  # noqa: ARG002 - tenacity's signature
        assert self._reason is not None, "the attempt failed"
        if self._is_round_over and self._reason.is_refusal and self._context.on_refusal is not None:
            self._context.on_refusal(self._sent)

    def _fail(self, state: RetryCallState) -> Any:  # noqa: ARG002 - tenacity's signature
        assert self._reason is not None, "the attempt failed"
        if self._count == 1:
            raise self._reason
        seconds = time.monotonic() - self._begun
        message = f"no server accepted the request in {self._count} attempts within {seconds:.1f} s: {self._reason}"
        raise _reworded(self._reason, message) from self._reason


def _reworded(error: Florence2Error, message: str) -> Florence2Error:
    """An error of the same type with another message."""
    other = type(error)(message)
    vars(other).update(vars(error))
    return other
