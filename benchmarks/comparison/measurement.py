"""The figures of one measurement."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness.load import Exchange
from benchmarks.harness.servers import SERVED_AT_ONCE
from benchmarks.harness.spread import percentile


@dataclass(frozen=True)
class Measurement:
    """One server under one load, once. Seconds and bytes; None if the load has no such figure.

    Attributes:
        throughput: answers per second in the steady window (`steady_throughput`).
        whole_throughput: answers per second from the first request to the last answer, run-out included.
        tokens_per_second: generated tokens per second from the first request to the last answer.
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
        """The fields by name."""
        return asdict(self)


def measure(exchanges: Sequence[Exchange], callers: int | None, peak_memory: int) -> Measurement:
    """The figures of a load.

    Args:
        exchanges: in the order of their responses.
        callers: of a closed loop; None for an open loop, whose throughput is its arrival rate.
        peak_memory: bytes of the server.
    """
    latencies = [exchange.latency for exchange in exchanges]
    short = [exchange.latency for exchange in exchanges if exchange.request.is_short]
    duration = exchanges[-1].end
    ends = [exchange.end for exchange in exchanges]
    return Measurement(
        answers=len(exchanges),
        throughput=None if callers is None else steady_throughput(ends, min(callers, SERVED_AT_ONCE)),
        whole_throughput=len(exchanges) / duration,
        tokens_per_second=sum(exchange.request.answer_tokens for exchange in exchanges) / duration,
        latency_p50=percentile(latencies, 50),
        latency_p95=percentile(latencies, 95),
        short_latency_p50=percentile(short, 50) if short else None,
        short_latency_p95=percentile(short, 95) if short else None,
        peak_memory=peak_memory,
        embeddings_cached=sum(exchange.response.embedding_was_cached for exchange in exchanges),
    )


def steady_throughput(ends: Sequence[float], served: int) -> float:
    """Answers per second while the server was fully loaded.

    The window begins with the `served`-th answer, when the requests that all began together are done, and ends with the
    last answer before which `served` requests were still open. Without the window, one long answer that happens to
    begin last would decide the figure of a server that finishes everything else meanwhile. A server that works in
    batches of `served` is counted in whole batches.

    Args:
        ends: times of the answers, ascending.
        served: requests that are served at once.
    """
    counted = len(ends) - 2 * served
    if counted <= 0:
        raise ValueError(f"{len(ends)} answers leave no steady window with {served} requests served at once")
    return counted / (ends[-served - 1] - ends[served - 1])
