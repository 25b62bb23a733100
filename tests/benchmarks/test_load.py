import threading
import time

import pytest

from benchmarks.harness.callers import Response
from benchmarks.harness.load import closed_loop, open_loop, poisson_schedule
from benchmarks.harness.requests import mixed_groups


class SlowServer:
    """Responds after a delay, and counts concurrent requests."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._concurrent = 0
        self.most_concurrent = 0

    def send(self, request, num_beams):
        with self._lock:
            self._concurrent += 1
            self.most_concurrent = max(self.most_concurrent, self._concurrent)
        time.sleep(self._seconds)
        with self._lock:
            self._concurrent -= 1
        return Response(f"{request.name} {num_beams}")

    def close(self):
        """Do nothing: there is no connection."""


class BrokenServer(SlowServer):
    def send(self, request, num_beams):
        raise ConnectionError(f"{request.name}, {num_beams} beams")


@pytest.fixture(scope="module")
def requests():
    return [group.requests(0)[0] for group in mixed_groups(8, 1)]


def test_a_closed_loop_sends_every_request_once_with_the_given_concurrency(requests):
    server, answered = SlowServer(0.01), []
    exchanges = closed_loop(server, requests, 3, 2, lambda: answered.append(1))
    assert sorted(exchange.request.name for exchange in exchanges) == sorted(request.name for request in requests)
    assert server.most_concurrent == 3
    assert len(answered) == 8
    assert all(exchange.response.text.endswith(" 2") for exchange in exchanges)
    assert [exchange.end for exchange in exchanges] == sorted(exchange.end for exchange in exchanges)


def test_a_callers_failure_is_not_swallowed(requests):
    with pytest.raises(ConnectionError):
        closed_loop(BrokenServer(), requests, 2, 1, lambda: None)


def test_an_open_loop_does_not_wait_for_responses(requests):
    server = SlowServer(0.5)
    exchanges = open_loop(server, requests, [0.0] * 8, 1, lambda: None)
    assert server.most_concurrent == 8
    assert len(exchanges) == 8


def test_latency_in_an_open_loop_counts_from_the_time_the_request_was_due(requests):
    exchanges = open_loop(SlowServer(0.02), requests[:2], [0.0, 0.05], 1, lambda: None)
    assert [exchange.start for exchange in exchanges] == [0.0, 0.05]
    assert all(0.02 <= exchange.latency < 0.5 for exchange in exchanges)


def test_poisson_arrivals_have_the_given_rate_and_an_exponential_spread():
    due = poisson_schedule(rate=4.0, count=4000, seed=1)
    gaps = [late - early for early, late in zip([0.0, *due], due, strict=False)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 4, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.1)  # as in an exponential distribution
    assert due == poisson_schedule(4.0, 4000, 1) != poisson_schedule(4.0, 4000, 2)
