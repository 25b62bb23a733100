"""What this model adds to Triton's metrics page. Labels are tasks and outcomes, never anything of a user's."""

import threading
from typing import Any

import triton_python_backend_utils as pb_utils
from florence2.engine.v1.engine_pb2 import GenerateResponse, HeartbeatResponse

from florence2_adapter.outcomes import Outcome, Times

# Seconds, from a cached one-token answer to a page of text on a slow machine.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)


class Series:
    """One time series on the metrics page.

    Args:
        metric: a metric of `triton_python_backend_utils`.
        turn: held during each call into tritonserver; see `TritonPythonModel`.
    """

    def __init__(self, metric: Any, turn: threading.Lock) -> None:
        self._metric = metric
        self._turn = turn

    def increment(self, value: float) -> None:
        """Add to a counter."""
        with self._turn:
            self._metric.increment(value)

    def set(self, value: float) -> None:
        """Set a gauge."""
        with self._turn:
            self._metric.set(value)

    def observe(self, value: float) -> None:
        """Add an observation to a histogram."""
        with self._turn:
            self._metric.observe(value)


class Family:
    """One name on the page, and a series for each combination of label values that was met."""

    def __init__(self, kind: str, name: str, description: str, turn: threading.Lock) -> None:
        self._family = pb_utils.MetricFamily(
            name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind)
        )
        self._arguments = {"buckets": list(BUCKETS)} if kind == "HISTOGRAM" else {}
        self._series: dict[tuple[str, ...], Series] = {}
        self._turn = turn

    def with_labels(self, **labels: str) -> Series:
        """The series of these label values."""
        values = tuple(labels.values())
        with self._turn:
            if values not in self._series:
                metric = self._family.Metric(labels=labels, **self._arguments)
                self._series[values] = Series(metric, self._turn)
            return self._series[values]


class Metrics:
    """Told of each outcome after it was sent, and of each heartbeat.

    A value takes 0.04 ms to reach the page, so nobody's answer waits for it.

    Args:
        slots: the engine's number of slots.
        turn: held during each call into tritonserver; see `TritonPythonModel`.
    """

    def __init__(self, slots: int, turn: threading.Lock) -> None:
        self._turn = turn
        self._families: list[Family] = []  # held on to: Triton forgets a series when nobody has its family
        self._requests = self._family("COUNTER", "florence2_requests_total", "Questions, by task and outcome")
        self._seconds = self._family(
            "HISTOGRAM", "florence2_request_seconds", "Seconds from Triton's queue to the answer, of those answered"
        )
        self._queue = self._family(
            "HISTOGRAM", "florence2_queue_seconds", "Of these, waiting for a slot and the prefill"
        )
        self._encode = self._family("HISTOGRAM", "florence2_encode_seconds", "Of these, encoding image and prompt")
        self._decode = self._family(
            "HISTOGRAM", "florence2_decode_seconds", "Of these, from the first decode step to the last"
        )
        self._first_token = self._family(
            "HISTOGRAM", "florence2_time_to_first_token_seconds", "Seconds from Triton's queue to the first token"
        )
        self._prompt_tokens = self._family("COUNTER", "florence2_prompt_tokens_total", "Tokens of the prompts answered")
        self._generated_tokens = self._family("COUNTER", "florence2_generated_tokens_total", "Tokens of the answers")
        self._hits = self._one(
            "COUNTER", "florence2_image_embedding_hits_total", "Answers whose image needed no encoding"
        )
        self._misses = self._one(
            "COUNTER", "florence2_image_embedding_misses_total", "Answers whose image had to be encoded"
        )
        self._cache_bytes = self._one(
            "GAUGE", "florence2_image_embedding_cache_bytes", "Memory of the image embeddings that are kept"
        )
        self._one("GAUGE", "florence2_slots", "Questions that the engine can work on at once").set(slots)
        self._slots_in_use = self._one("GAUGE", "florence2_slots_in_use", "Questions that the engine works on")
        self._waiting = self._one(
            "GAUGE", "florence2_engine_waiting_requests", "Of these, those that wait for the prefill"
        )
        self._running = self._one("GAUGE", "florence2_engine_running_requests", "Of these, those in the decode batch")
        self._steps = Increases(self._one("COUNTER", "florence2_decode_steps_total", "Decode steps of the batch"))
        self._rows = Increases(
            self._one("COUNTER", "florence2_decode_rows_total", "Rows, which are beams, of all decode steps together")
        )
        self._up = self._one("GAUGE", "florence2_engine_up", "1 while the engine answers, else 0")
        self._restarts = self._one("COUNTER", "florence2_engine_restarts_total", "Engines that were lost and replaced")
        self._retried = self._one(
            "COUNTER", "florence2_engine_retried_requests_total", "Questions that were asked again of another engine"
        )
        memory = self._family(
            "GAUGE", "florence2_engine_memory_bytes", "Memory that the engine has, of the host and the device"
        )
        self._host_memory, self._device_memory = memory.with_labels(kind="host"), memory.with_labels(kind="device")

    def observe(self, outcome: Outcome) -> None:
        """Count an outcome; as a question last of all, so that a counted question has all its figures on the page."""
        if outcome.answer is not None and outcome.times is not None:
            self._observe_answer(outcome.task, outcome.answer, outcome.times)
        self._requests.with_labels(task=outcome.task, outcome=outcome.name).increment(1)

    def _observe_answer(self, task: str, answer: GenerateResponse, times: Times) -> None:
        self._seconds.with_labels(task=task).observe(times.total)
        self._queue.with_labels(task=task).observe(times.queue)
        self._encode.with_labels(task=task).observe(times.encode)
        self._decode.with_labels(task=task).observe(times.decode)
        self._first_token.with_labels(task=task).observe(times.first_token)
        self._prompt_tokens.with_labels(task=task).increment(answer.usage.prompt_tokens)
        self._generated_tokens.with_labels(task=task).increment(answer.usage.generated_tokens)
        (self._hits if answer.usage.image_embedding_cached else self._misses).increment(1)

    def observe_heartbeat(self, heartbeat: HeartbeatResponse) -> None:
        """Show what the engine is at."""
        self._up.set(1)
        self._waiting.set(heartbeat.waiting_requests)
        self._running.set(heartbeat.running_requests)
        self._steps.to(heartbeat.decode_steps)
        self._rows.to(heartbeat.decode_rows)
        self._cache_bytes.set(heartbeat.image_embedding_cache_bytes)
        self._host_memory.set(heartbeat.host_memory_bytes)
        self._device_memory.set(heartbeat.device_memory_bytes)

    def set_slots_in_use(self, slots: int) -> None:
        """So many questions are with the engine, or wait for the next one."""
        self._slots_in_use.set(slots)

    def count_restart(self) -> None:
        """An engine was lost."""
        self._restarts.increment(1)
        self._steps.begin_again()
        self._rows.begin_again()
        for gauge in (
            self._up,
            self._waiting,
            self._running,
            self._cache_bytes,
            self._host_memory,
            self._device_memory,
        ):
            gauge.set(0)

    def count_retried(self) -> None:
        """A question was with an engine that was lost, and is asked again of the next one."""
        self._retried.increment(1)

    def _family(self, kind: str, name: str, description: str) -> "Family":
        family = Family(kind, name, description, self._turn)
        self._families.append(family)
        return family

    def _one(self, kind: str, name: str, description: str) -> Series:
        """The one series of a name without labels."""
        return self._family(kind, name, description).with_labels()


class Increases:
    """A counter of something that an engine counts itself, from 0 each time that one is started."""

    def __init__(self, counter: Series) -> None:
        self._counter = counter
        self._last = 0

    def to(self, count: int) -> None:
        """The engine has counted so far."""
        self._counter.increment(count - self._last)
        self._last = count

    def begin_again(self) -> None:
        """The next engine counts from 0."""
        self._last = 0
