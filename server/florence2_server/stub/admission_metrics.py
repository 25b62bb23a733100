"""The metrics of the admission queue and of refusals."""

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from florence2_server.config import AdmissionConfig
from florence2_server.stub.admission import QueueStatistics
from florence2_server.stub.metrics import REFUSED, Gauge, RequestMetrics, objective_requests_total, requests_total
from florence2_server.stub.objectives import FAILED
from florence2_server.stub.outcomes import UNKNOWN_TASK

if TYPE_CHECKING:
    from florence2_server.stub.triton import MetricFamily, Triton

# Seconds to a refusal, which should take milliseconds.
REFUSAL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class AdmissionMetrics:
    """Shows the admission queue.

    Args:
        triton: where the metrics are exported.
        config: the queue's limits.
        slots: the engine's number of slots.
        request_metrics: count refused requests, too.
    """

    def __init__(self, triton: "Triton", config: AdmissionConfig, slots: int, request_metrics: RequestMetrics) -> None:
        def gauge(name: str, description: str, value: float = 0) -> "Gauge":
            return Gauge(triton.gauge(name, description).with_labels(), value)

        # Kept, because Triton drops a time series with its object.
        self._limits = (
            gauge("florence2_slots", "Generations that the engine can decode at once", slots),
            gauge("florence2_queue_limit_requests", "Limit of florence2_waiting_requests", config.queue_requests),
            gauge("florence2_queue_limit_bytes", "Limit of florence2_waiting_image_bytes", config.queue_bytes),
        )
        self._slots = slots
        self._slots_in_use = gauge(
            "florence2_slots_in_use",
            "Generations submitted to the engine, also while it restarts; at most the number of slots",
        )
        self._requests = gauge(
            "florence2_waiting_requests", "Admitted requests none of whose generations has been submitted to the engine"
        )
        self._memory = gauge(
            "florence2_waiting_image_bytes", "Bytes of memory for the images of all unanswered requests"
        )
        self._oldest = gauge(
            "florence2_oldest_waiting_seconds", "Seconds that the oldest waiting request has waited; 0 if none waits"
        )
        self._refusals = _refusals(triton)
        self._request_metrics = request_metrics
        self._new_refusals: deque[tuple[str, float]] = deque()
        for reason in ("requests", "bytes"):  # at 0, so that the first refusal is an increase
            self._refusals.with_labels(reason=reason)
        self._refusal_seconds = triton.histogram(
            "florence2_refusal_seconds", "Seconds from a request's receipt to its refusal", REFUSAL_BUCKETS
        ).with_labels()

    def show(self, queue: QueueStatistics) -> None:
        """Show the state of the queue, and what was refused since the last time."""
        self._show_refusals()
        self._slots_in_use.set(min(queue.submitted, self._slots))
        self._requests.set(queue.requests)
        self._memory.set(queue.memory)
        self._oldest.set(0 if queue.oldest is None else time.monotonic() - queue.oldest)

    def count_refusal(self, reason: str, seconds: float) -> None:
        """Count a request that was refused. `show` reports it: in overload, a round-trip for each would add up."""
        self._new_refusals.append((reason, seconds))

    def _show_refusals(self) -> None:
        refused = [self._new_refusals.popleft() for _ in range(len(self._new_refusals))]
        for _, seconds in refused:
            self._refusal_seconds.observe(seconds)
        for reason, count in Counter(reason for reason, _ in refused).items():
            self._refusals.with_labels(reason=reason).increment(count)
        if refused:
            self._request_metrics.count_refused(len(refused))


class StreamRefusals:
    """Counts the streams that the stub of the model for streams refuses before it forwards them.

    Args:
        triton: where the metrics are exported.
    """

    def __init__(self, triton: "Triton") -> None:
        self._refusals = _refusals(triton).with_labels(reason="bytes")
        self._requests = requests_total(triton).with_labels(task=UNKNOWN_TASK, outcome=REFUSED)
        self._failed = objective_requests_total(triton).with_labels(task_class=UNKNOWN_TASK, verdict=FAILED)

    def count(self) -> None:
        """Count one."""
        for counter in (self._refusals, self._requests, self._failed):
            counter.increment(1)


def _refusals(triton: "Triton") -> "MetricFamily":
    return triton.counter("florence2_refusals_total", "Requests refused by a full admission queue, by the limit")
