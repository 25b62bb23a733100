"""Which server each attempt goes to, and the waits between attempts."""

import threading
import time

import pytest
from florence2 import Retry
from florence2.errors import (
    UnavailableError,
)
from florence2.transports import RequestContext
from florence2.transports.attempts import Attempts


def attempts(endpoints: int, retry: Retry | None = None) -> Attempts:
    return Attempts([str(number) for number in range(endpoints)], retry)


def test_backoff_is_bounded_and_doubles():
    retry = Retry(initial_backoff=1, max_backoff=8)
    assert [attempts(1, retry).bound(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 8, 8]


def test_waits_are_spread_between_zero_and_the_bound():
    slept = []

    def refuse(_: int) -> None:
        raise UnavailableError("full")

    for _ in range(300):
        with pytest.raises(UnavailableError):
            attempts(1, Retry(attempts=4, initial_backoff=1, max_backoff=2)).run(
                RequestContext(timeout=1e6), slept.append, refuse
            )
    for number, bound in enumerate([1, 2, 2]):
        drawn = slept[number::3]
        assert 0 <= min(drawn) < 0.1 * bound
        assert 0.9 * bound < max(drawn) <= bound


def sequence(made: Attempts, refusing: set[int], retries: int) -> list[int | None]:
    """The servers of a request's attempts, and None for a wait."""
    chosen: list[int | None] = []

    def attempt(endpoint: int) -> None:
        chosen.append(endpoint)
        if endpoint in refusing and len(chosen) < retries:
            raise UnavailableError("full")

    made.run(RequestContext(timeout=1e6), lambda seconds: chosen.append(None) if seconds else None, attempt)
    return chosen


def test_there_is_no_wait_until_every_server_has_rejected_the_request():
    chosen = sequence(attempts(3, Retry(initial_backoff=1)), {0, 1, 2}, 4)
    assert sorted(chosen[:3]) == [0, 1, 2]
    assert chosen[3] is None


def test_a_server_that_failed_is_avoided():
    made = attempts(3, Retry(initial_backoff=60, max_backoff=60))
    found = [sequence(made, {1}, 9) for _ in range(30)]
    assert [chosen for chosen in found if 1 in chosen] == [found[1]]
    assert sorted(chosen[-1] for chosen in found) == [0] * 15 + [2] * 15


def test_if_all_servers_failed_the_one_that_is_due_next_is_tried():
    made = attempts(2, Retry(initial_backoff=60, max_backoff=60))
    first = sequence(made, {0, 1}, 3)
    assert first[2] is None
    assert len(sequence(made, set(), 9)) == 1


def test_only_one_request_probes_a_server():
    made = attempts(2, Retry(initial_backoff=0.01, max_backoff=60))
    sequence(made, {0}, 9)
    for _ in range(12):
        made.failed(0, time.monotonic(), UnavailableError("gone"))
    made._memory[0].avoided_until = 0  # the time to probe it has come
    assert [made.choose(number, set()) for number in (0, 2, 4)] == [0, 1, 1]


def test_outcomes_of_attempts_before_the_last_failure_say_nothing_new():
    made = attempts(1, Retry())
    early = time.monotonic()
    made.failed(0, time.monotonic(), UnavailableError("gone"))
    made.failed(0, early, UnavailableError("gone"))
    assert made._memory[0].failures == 1
    made.succeeded(0, early)
    assert made._memory[0].failures == 1
    made.succeeded(0, time.monotonic())
    assert made._memory[0].failures == 0


def test_a_request_without_a_deadline_is_retried_for_a_minute(monkeypatch):
    now = [0.0]

    def refuse(_: int) -> None:
        raise UnavailableError("gone")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("florence2.transports.attempts.time.monotonic", lambda: now[0])
    with pytest.raises(UnavailableError, match=r"no server accepted .* within (59|60)\.\d s: gone"):
        attempts(1, Retry()).run(RequestContext(), sleep, refuse)
    assert 59 < now[0] <= 60


def test_threads_take_turns_too():
    made, chosen = attempts(4), []
    threads = [
        threading.Thread(target=lambda: made.run(RequestContext(), time.sleep, chosen.append)) for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chosen) == sorted(list(range(4)) * 10)
