"""From a load's outcomes to the figures of one measurement, and from rounds to ratios."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.load import Outcome

# Rows that both servers work on at once, at most: the conventional one's largest batch, and our slots.
SERVED_AT_ONCE = 16


@dataclass(frozen=True)
class Measurement:
    """One server under one load, once. Seconds and bytes; None where a load has no such figure.

    Attributes:
        throughput: answers a second in the steady window (`steady_window`).
        whole_throughput: answers a second from the first question to the last answer, the run-out included.
        tokens_per_second: generated tokens a second from the first question to the last answer.
    """

    answers: int
    throughput: float | None
    whole_throughput: float
    tokens_per_second: float
    latency_p50: float
    latency_p95: float
    short_latency_p50: float | None
    short_latency_p95: float | None
    peak_memory: int
    embeddings_cached: int

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)


def measure(outcomes: Sequence[Outcome], callers: int | None, peak_memory: int) -> Measurement:
    """The figures of a load.

    Args:
        outcomes: in the order of their answers.
        callers: of a closed loop; None for an open one, whose throughput is that of its arrivals.
        peak_memory: bytes of the server.
    """
    latencies = [outcome.latency for outcome in outcomes]
    short = [outcome.latency for outcome in outcomes if outcome.question.is_short]
    duration = outcomes[-1].answered
    answered = [outcome.answered for outcome in outcomes]
    return Measurement(
        answers=len(outcomes),
        throughput=None if callers is None else steady_throughput(answered, min(callers, SERVED_AT_ONCE)),
        whole_throughput=len(outcomes) / duration,
        tokens_per_second=sum(outcome.question.answer_tokens for outcome in outcomes) / duration,
        latency_p50=percentile(latencies, 50),
        latency_p95=percentile(latencies, 95),
        short_latency_p50=percentile(short, 50) if short else None,
        short_latency_p95=percentile(short, 95) if short else None,
        peak_memory=peak_memory,
        embeddings_cached=sum(outcome.reply.embedding_was_cached for outcome in outcomes),
    )


def steady_throughput(answered: Sequence[float], served: int) -> float:
    """Answers a second while the server was fully loaded.

    The window begins with the `served`-th answer, when the rows that all began together are through, and ends with the
    last answer before which `served` questions were still unanswered. Without it one long answer that happens to
    begin last would decide the figure of the server that answers the rest meanwhile. A server that works in batches of
    `served` is counted in whole batches by it.

    Args:
        answered: times of the answers, in order.
        served: questions that are worked on at once.
    """
    counted = len(answered) - 2 * served
    if counted <= 0:
        raise ValueError(f"{len(answered)} answers leave no steady window with {served} questions served at once")
    return counted / (answered[-served - 1] - answered[served - 1])


def percentile(values: Sequence[float], percent: float) -> float:
    """By linear interpolation between the nearest ranks."""
    return float(np.percentile(values, percent))


@dataclass(frozen=True)
class Spread:
    """A figure's median over rounds, and its least and greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of one value a round."""
        return cls(median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours by theirs, round by round: what changed between rounds, such as the machine's clock, changed both."""
    return Spread.of([our / their for our, their in zip(ours, theirs, strict=True)])
