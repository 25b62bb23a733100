"""What this model adds to Triton's metrics page."""

from typing import Any

import triton_python_backend_utils as pb_utils
from florence2.engine.v1.engine_pb2 import GenerateResponse


class Metrics:
    """Counters and gauges, told of each answer after it was sent."""

    def __init__(self) -> None:
        self._families: list[Any] = []  # Triton forgets a metric when nobody holds its family
        counter, gauge = pb_utils.MetricFamily.COUNTER, pb_utils.MetricFamily.GAUGE
        self._hits = self._metric(
            "florence2_image_embedding_hits_total", "Answers whose image needed no encoding", counter
        )
        self._misses = self._metric(
            "florence2_image_embedding_misses_total", "Answers whose image had to be encoded", counter
        )
        self._bytes = self._metric(
            "florence2_image_embedding_cache_bytes", "Memory of the image embeddings that are kept", gauge
        )
        self._slots = self._metric("florence2_slots_in_use", "Questions that the engine works on", gauge)
        self._restarts = self._metric("florence2_engine_restarts_total", "Engines that were lost and replaced", counter)

    def observe(self, answer: GenerateResponse) -> None:
        """Count an answer."""
        (self._hits if answer.usage.image_embedding_cached else self._misses).increment(1)
        self._bytes.set(answer.image_embedding_cache_bytes)

    def set_slots_in_use(self, slots: int) -> None:
        """So many questions are with the engine, or wait for the next one."""
        self._slots.set(slots)

    def count_restart(self) -> None:
        """An engine was lost."""
        self._restarts.increment(1)

    def _metric(self, name: str, description: str, kind: Any) -> Any:
        family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._families.append(family)
        return family.Metric(labels={})
