"""A simulation of the engine's loop: queueing, encoding and decoding with given costs."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """The engine's costs in seconds.

    Attributes:
        encode: of an image and its prompt, during which decoding stops.
        step: of a decode step, regardless of its rows.
        row: of each row in a decode step, in addition.
    """

    encode: float
    step: float
    row: float


@dataclass(frozen=True)
class SimulatedRequest:
    """A request's arrival and the end of its answer, in seconds since the load began."""

    start: float
    end: float

    @property
    def latency(self) -> float:
        """Seconds from arrival to answer."""
        return self.end - self.start


def open_loop(costs: Costs, answer_tokens: Sequence[int], due: Sequence[float], slots: int) -> list[SimulatedRequest]:
    """Simulate arrivals at given times.

    Args:
        costs: of the engine.
        answer_tokens: length of each request's answer, in the order of arrival.
        due: arrival times, ascending.
        slots: requests that are decoded at once, at most.
    """
    arrivals = deque(zip(due, answer_tokens, strict=True))
    return _run(costs, arrivals, slots, on_response=lambda _: None)


def closed_loop(costs: Costs, answer_tokens: Sequence[int], callers: int, slots: int) -> list[SimulatedRequest]:
    """Simulate callers that each send the next request as soon as they have a response."""
    requests = iter(answer_tokens)
    arrivals = deque((0.0, tokens) for _, tokens in zip(range(callers), requests, strict=False))

    def send_next(now: float) -> None:
        if (tokens := next(requests, None)) is not None:
            arrivals.append((now, tokens))

    return _run(costs, arrivals, slots, send_next)


def _run(
    costs: Costs, arrivals: "deque[tuple[float, int]]", slots: int, on_response: Callable[[float], None]
) -> list[SimulatedRequest]:
    now = 0.0
    running: list[tuple[float, int]] = []  # arrival time, tokens left to generate
    answered: list[SimulatedRequest] = []
    while arrivals or running:
        if not running:
            now = max(now, arrivals[0][0])
        # One image between two steps, as on CPU, so that running requests keep advancing.
        if len(running) < slots and arrivals and arrivals[0][0] <= now:
            running.append(arrivals.popleft())
            now += costs.encode
        now += costs.step + costs.row * len(running)
        unfinished = []
        for start, tokens in running:
            if tokens > 1:
                unfinished.append((start, tokens - 1))
            else:
                answered.append(SimulatedRequest(start, now))
                on_response(now)
        running = unfinished
    return answered
