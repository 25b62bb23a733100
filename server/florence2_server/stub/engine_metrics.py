"""The metrics of the engine, and what it serves."""

from typing import TYPE_CHECKING

from florence2.v1 import EngineInfo

from florence2_server.stub.adapter_metrics import AdapterMetrics
from florence2_server.v1.engine_pb2 import HeartbeatResponse

if TYPE_CHECKING:
    from florence2_server.stub.triton import Metric, Triton


class EngineMetrics:
    """Shows the state of the engine; the observer of its supervisor.

    Args:
        triton: where the metrics are exported.
        version: of the server.
        adapters: show the adapters of the engine's generations.
    """

    def __init__(self, triton: "Triton", version: str, adapters: AdapterMetrics) -> None:
        def gauge(name: str, description: str) -> "Metric":
            return triton.gauge(name, description).with_labels()

        def counter(name: str, description: str) -> "Metric":
            return triton.counter(name, description).with_labels()

        self._version = version
        self._adapters = adapters
        self._info = triton.changing_gauge("florence2_info", "What the engine serves, in the labels; always 1")
        self._waiting = gauge("florence2_engine_waiting_requests", "Generations in the engine that wait for prefill")
        self._running = gauge("florence2_engine_running_requests", "Generations in the engine's decode batch")
        self._steps = EngineCount(counter("florence2_decode_steps_total", "Decode steps of the engine's batch"))
        self._rows = EngineCount(
            counter("florence2_decode_rows_total", "Rows (beams of all generations) of all decode steps together")
        )
        self._cache_bytes = gauge("florence2_image_embedding_cache_bytes", "Bytes of cached image embeddings")
        self._up = gauge("florence2_engine_up", "1 if the engine responds to heartbeats, else 0")
        self._restarts = counter("florence2_engine_restarts_total", "Restarts of the engine after a crash or a hang")
        self._resubmissions = counter(
            "florence2_engine_retried_requests_total", "Generations resubmitted after a crash or a hang of the engine"
        )
        memory = triton.gauge(
            "florence2_engine_memory_bytes",
            "Bytes of memory held by the engine: resident on the host, reserved on the device",
        )
        self._host_memory, self._device_memory = memory.with_labels(kind="host"), memory.with_labels(kind="device")

    def observe_start(self, info: EngineInfo) -> None:
        """Show what an engine serves that is ready now."""
        self._info.clear()  # a restarted engine may serve another revision
        self._info.with_labels(
            version=self._version,
            checkpoint=info.checkpoint,
            revision=info.revision,
            layout=info.layout,
            device=info.device,
            dtype=info.dtype,
            slots=str(info.slots),
        ).set(1)
        self._up.set(1)

    def observe_heartbeat(self, heartbeat: HeartbeatResponse) -> None:
        """Show the state of a responsive engine."""
        self._up.set(1)
        self._waiting.set(heartbeat.waiting_requests)
        self._running.set(heartbeat.running_requests)
        self._steps.update(heartbeat.decode_steps)
        self._rows.update(heartbeat.decode_rows)
        self._cache_bytes.set(heartbeat.image_embedding_cache_bytes)
        self._host_memory.set(heartbeat.host_memory_bytes)
        self._device_memory.set(heartbeat.device_memory_bytes)
        self._adapters.observe_heartbeat(heartbeat)

    def count_restart(self) -> None:
        """Count a restart, and show that there is no engine until the next heartbeat."""
        self._restarts.increment(1)
        self._steps.reset()
        self._rows.reset()
        gauges = (self._up, self._waiting, self._running, self._cache_bytes, self._host_memory, self._device_memory)
        for gauge in gauges:
            gauge.set(0)
        self._adapters.observe_loss()

    def count_resubmission(self) -> None:
        """Count a request that is submitted again after a restart."""
        self._resubmissions.increment(1)


class EngineCount:
    """A counter fed by a count that the engine keeps, which starts from 0 with each engine."""

    def __init__(self, counter: "Metric") -> None:
        self._counter = counter
        self._last = 0

    def update(self, count: int) -> None:
        """Add what the engine has counted since the last update."""
        self._counter.increment(count - self._last)
        self._last = count

    def reset(self) -> None:
        """Expect the count of a new engine."""
        self._last = 0
