"""The metrics that the stub adds to Triton's. Their labels are tasks, outcomes and reasons, never a caller's words.

All have the labels `model` and `engine` too: each stub has time series of its own.

A new value takes 0.04 ms to reach Triton, so it is reported after the response has been sent.
"""

from typing import TYPE_CHECKING, Protocol

import grpc

from florence2_server.config import ObjectiveConfig
from florence2_server.stub.objectives import FAILED, TASK_CLASSES, VERDICTS, objective_seconds, task_class, verdict
from florence2_server.stub.outcomes import UNKNOWN_TASK, Outcome, StepOutcome

if TYPE_CHECKING:
    from florence2_server.stub.triton import Metric, MetricFamily, Triton

# Seconds, from a one-token answer about a cached image to a page of text on a slow machine.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
# The outcome of requests that a full queue refused.
REFUSED = grpc.StatusCode.UNAVAILABLE.name.lower()


class CountsAdapters(Protocol):
    """Counts requests by adapter."""

    def count(self, adapter: str, outcome: str) -> None:
        """Count a request that named an adapter."""


class RequestMetrics:
    """Counts and times the requests that were answered, and their steps.

    Args:
        triton: where the metrics are exported.
        objectives: the latency objectives.
        adapters: count the requests that name an adapter.
    """

    def __init__(self, triton: "Triton", objectives: ObjectiveConfig, adapters: "CountsAdapters") -> None:
        self._adapters = adapters
        self._objectives = ObjectiveMetrics(triton, objectives)
        self._requests = requests_total(triton)
        self._seconds = triton.histogram(
            "florence2_request_seconds", "Seconds from the receipt of a request to its response, if successful", BUCKETS
        )
        self._steps = triton.counter(
            "florence2_steps_total", "Steps of cascades and task lists that ended, by the step's task and outcome"
        )
        self._queue = triton.histogram(
            "florence2_queue_seconds",
            "Seconds of waiting for a slot, for image decoding and for prefill, of successful requests and steps",
            BUCKETS,
        )
        self._encode = triton.histogram(
            "florence2_encode_seconds",
            "Seconds of encoding image and prompt, of successful requests and steps",
            BUCKETS,
        )
        self._decode = triton.histogram(
            "florence2_decode_seconds",
            "Seconds from the first decode step to the last, of successful requests and steps",
            BUCKETS,
        )
        self._first_token = triton.histogram(
            "florence2_time_to_first_token_seconds",
            "Seconds from receipt, or from the start of a later step, to the first generated token, if successful",
            BUCKETS,
        )
        self._prompt_tokens = triton.counter(
            "florence2_prompt_tokens_total", "Prompt tokens of successful requests and steps"
        )
        self._generated_tokens = triton.counter(
            "florence2_generated_tokens_total", "Tokens generated for successful requests and steps"
        )
        self._hits = triton.counter(
            "florence2_image_embedding_hits_total", "Successful requests and steps whose image embedding was cached"
        ).with_labels()
        self._misses = triton.counter(
            "florence2_image_embedding_misses_total", "Successful requests and steps whose image had to be encoded"
        ).with_labels()

    def observe(self, outcome: Outcome) -> None:
        """Record an outcome. The request is counted last, so that a counted request has all its values on the page."""
        for step in outcome.steps:
            self._observe_step(step)
            if not outcome.is_single_step:
                self._steps.with_labels(task=step.task, outcome=step.name).increment(1)
        if outcome.status is grpc.StatusCode.OK:
            self._seconds.with_labels(task=outcome.task).observe(outcome.seconds)
        self._objectives.observe(outcome)
        if outcome.adapter:
            self._adapters.count(outcome.adapter, outcome.name)
        self._requests.with_labels(task=outcome.task, outcome=outcome.name).increment(1)

    def count_refused(self, requests: int) -> None:
        """Count requests that were refused before they were parsed."""
        self._objectives.count_refused(requests)
        self._requests.with_labels(task=UNKNOWN_TASK, outcome=REFUSED).increment(requests)

    def _observe_step(self, step: StepOutcome) -> None:
        if step.usage is None or step.times is None:
            return
        self._queue.with_labels(task=step.task).observe(step.times.queue)
        self._encode.with_labels(task=step.task).observe(step.times.encode)
        self._decode.with_labels(task=step.task).observe(step.times.decode)
        self._first_token.with_labels(task=step.task).observe(step.times.first_token)
        self._prompt_tokens.with_labels(task=step.task).increment(step.usage.prompt_tokens)
        self._generated_tokens.with_labels(task=step.task).increment(step.usage.generated_tokens)
        (self._hits if step.usage.image_embedding_cached else self._misses).increment(1)


class ObjectiveMetrics:
    """Counts the requests that were answered in time, late, or not.

    Args:
        triton: where the metrics are exported.
        config: the latency objectives.
    """

    def __init__(self, triton: "Triton", config: ObjectiveConfig) -> None:
        self._config = config
        self._requests = objective_requests_total(triton)
        seconds = triton.gauge("florence2_objective_seconds", "The latency objective of a task class, in seconds")
        for class_ in TASK_CLASSES:
            for verdict_ in VERDICTS:  # at 0, so that the first failure is an increase
                self._requests.with_labels(task_class=class_, verdict=verdict_)
            if class_ != UNKNOWN_TASK:
                seconds.with_labels(task_class=class_).set(objective_seconds(config, class_))
        self._seconds = seconds  # kept, because Triton drops a time series with its object

    def observe(self, outcome: Outcome) -> None:
        """Count a request, if it counts."""
        class_ = task_class(outcome.task)
        if counted := verdict(outcome, objective_seconds(self._config, class_)):
            self._requests.with_labels(task_class=class_, verdict=counted).increment(1)

    def count_refused(self, requests: int) -> None:
        """Count requests that were refused before they were parsed."""
        self._requests.with_labels(task_class=UNKNOWN_TASK, verdict=FAILED).increment(requests)


def requests_total(triton: "Triton") -> "MetricFamily":
    """The counter of answered requests, by task and outcome."""
    return triton.counter("florence2_requests_total", "Requests answered, by task and outcome")


def objective_requests_total(triton: "Triton") -> "MetricFamily":
    """The counter of requests that count for the objectives, by task class and verdict."""
    return triton.counter(
        "florence2_objective_requests_total",
        "Requests that count for the objectives, by task class: good, slow (later than the objective) or failed",
    )


class Gauge:
    """A gauge. A change is a round-trip to tritonserver; setting the same value again is none.

    Args:
        gauge: Triton's own.
        value: the first value.
    """

    def __init__(self, gauge: "Metric", value: float = 0) -> None:
        self._gauge = gauge
        self._value = value
        gauge.set(value)

    def set(self, value: float) -> None:
        """Set the value."""
        if value != self._value:
            self._gauge.set(value)
            self._value = value
