"""The metrics of adapters. Labels are the names of adapters that are served, never a caller's words."""

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from florence2_server.stub.metrics import Gauge
from florence2_server.v1.engine_pb2 import AdapterStatus, HeartbeatResponse

if TYPE_CHECKING:
    from florence2_server.stub.triton import Triton

# Requests that name an adapter which is not served, or not any more. No adapter can have this name.
OTHER = "(other)"


class AdapterMetrics:
    """Shows the adapters that are served, and counts their requests. Thread-safe.

    An adapter that is not served any more has no time series, so that there are never more than adapters.

    Args:
        triton: where the metrics are exported.
        most: the most adapters that the engine serves.
    """

    def __init__(self, triton: "Triton", most: int) -> None:
        self._lock = threading.Lock()  # so that no other thread refers to a time series that is removed
        self._most = str(most)
        self._served: frozenset[str] = frozenset()
        self._waiting: Callable[[], Collection[str]] = tuple
        self._count = Gauge(triton.gauge("florence2_adapters", "Adapters that requests can name").with_labels())
        self._bytes = triton.changing_gauge("florence2_adapter_bytes", "Bytes of memory on the device, by adapter")
        self._requests = triton.changing_counter(
            "florence2_adapter_requests_total",
            f"Requests answered that named an adapter, by outcome; {OTHER}: one that is not served",
        )
        self._load = triton.changing_gauge(
            "florence2_lora_requests_info",
            "Unix time at which the labels were true: the adapters of running and of waiting generations, as the "
            "Kubernetes inference gateway's protocol names them",
        )
        self._show_load((), ())

    def watch_queue(self, waiting: Callable[[], Collection[str]]) -> None:
        """Count as waiting also the adapters that a function names, which callers may have made up."""
        self._waiting = waiting

    def show_served(self, served: Sequence[AdapterStatus]) -> None:
        """Show the adapters that are served from now on."""
        names = frozenset(status.name for status in served)
        with self._lock:
            for name in self._served - names:
                self._bytes.remove(adapter=name)
                self._requests.remove(adapter=name)
            for status in served:
                self._bytes.with_labels(adapter=status.name).set(status.bytes)
            self._count.set(len(names))
            self._served = names

    def count(self, adapter: str, outcome: str) -> None:
        """Count a request that named an adapter."""
        with self._lock:
            name = adapter if adapter in self._served else OTHER
            self._requests.with_labels(adapter=name, outcome=outcome).increment(1)

    def observe_heartbeat(self, heartbeat: HeartbeatResponse) -> None:
        """Show the adapters of the generations in the engine and in the queue."""
        queued = self._served.intersection(self._waiting())
        self._show_load(heartbeat.running_adapters, queued.union(heartbeat.waiting_adapters))

    def observe_loss(self) -> None:
        """Show that no generation runs: the engine was lost."""
        self._show_load((), self._served.intersection(self._waiting()))

    def _show_load(self, running: Collection[str], waiting: Collection[str]) -> None:
        self._load.replace(
            time.time(),
            max_lora=self._most,
            running_lora_adapters=",".join(sorted(running)),
            waiting_lora_adapters=",".join(sorted(waiting)),
        )
