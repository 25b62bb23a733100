"""Load generators: closed loops, and open loops with Poisson arrivals."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.harness.callers import Caller, Response
from benchmarks.harness.requests import Request


@dataclass(frozen=True)
class Exchange:
    """A request with its response.

    Attributes:
        start: when the request was sent, or was due in an open loop; seconds since the load began.
        end: when the response arrived, seconds since the load began.
    """

    request: Request
    response: Response
    start: float
    end: float

    @property
    def latency(self) -> float:
        """Seconds from request to response."""
        return self.end - self.start


def closed_loop(
    caller: Caller, requests: Sequence[Request], callers: int, num_beams: int, on_response: Callable[[], None]
) -> list[Exchange]:
    """Send every request once: each of `callers` sends the next one as soon as it has a response.

    Returns:
        The exchanges in the order of their responses.
    """
    queue = iter(requests)
    exchanges: list[Exchange] = []
    lock = threading.Lock()
    begin = time.perf_counter()

    def send_until_empty() -> None:
        while True:
            with lock:
                request = next(queue, None)
            if request is None:
                return
            start = time.perf_counter() - begin
            response = caller.send(request, num_beams)
            end = time.perf_counter() - begin
            with lock:
                exchanges.append(Exchange(request, response, start, end))
            on_response()

    with ThreadPoolExecutor(callers) as pool:
        for worker in [pool.submit(send_until_empty) for _ in range(callers)]:
            worker.result()
    return sorted(exchanges, key=lambda exchange: exchange.end)


def open_loop(
    caller: Caller, requests: Sequence[Request], due: Sequence[float], num_beams: int, on_response: Callable[[], None]
) -> list[Exchange]:
    """Send each request when it is due, regardless of how many responses are outstanding.

    Args:
        caller: connection to the server.
        requests: in the order of their arrival.
        due: seconds after the start, one per request, ascending.
        num_beams: of every request.
        on_response: called after each response.

    Returns:
        The exchanges in the order of their responses.
    """
    begin = time.perf_counter()

    def send(request: Request, start: float) -> Exchange:
        response = caller.send(request, num_beams)
        on_response()
        return Exchange(request, response, start, time.perf_counter() - begin)

    with ThreadPoolExecutor(len(requests)) as pool:
        pending = []
        for request, start in zip(requests, due, strict=True):
            time.sleep(max(0.0, begin + start - time.perf_counter()))
            pending.append(pool.submit(send, request, start))
        return sorted((each.result() for each in pending), key=lambda exchange: exchange.end)


def poisson_schedule(rate: float, count: int, seed: int) -> list[float]:
    """The times, in seconds, of `count` Poisson arrivals at `rate` per second on average."""
    generator = random.Random(seed)  # noqa: S311 - seeded on purpose
    due, now = [], 0.0
    for _ in range(count):
        now += generator.expovariate(rate)
        due.append(now)
    return due
