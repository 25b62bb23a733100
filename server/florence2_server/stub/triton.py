"""Triton, as the stub uses it: the only module that imports `triton_python_backend_utils`.

It translates for the rest of the stub, whose statuses are gRPC's, and makes one call into tritonserver at a time.
"""

import json
import logging
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any

import grpc
import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from florence2_server.start_error import report_start_error
from florence2_server.stub.incoming import NoRoomError

_logger = logging.getLogger(__name__)

# By name: the stub adds TritonError to pb_utils only after it has imported the model.
_ERROR_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_ARG",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.CANCELLED: "CANCELLED",
    grpc.StatusCode.DEADLINE_EXCEEDED: "UNAVAILABLE",  # as when a timeout passes in Triton's own queue
}
_MICROSECONDS = 1_000_000
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where Triton keeps what it shares with this process
_LARGE_RESPONSE_BYTES = 1 << 20
_RESPONSE_ROOM = 2


def load_error(message: str) -> Exception:
    """The exception that keeps a model from loading; its message appears in tritonserver's log, in one line.

    The command that started tritonserver repeats it.
    """
    line = " ".join(message.split())
    report_start_error(line)
    error: Exception = pb_utils.TritonModelException(line)
    return error


@contextmanager
def load_errors(*expected: type[Exception]) -> Iterator[None]:
    """Turn every exception into one that keeps a model from loading and says why in one line.

    Args:
        expected: exceptions whose messages say all. The traceback of any other one is logged.

    Raises:
        TritonModelException: there was an exception.
    """
    try:
        yield
    except expected as error:
        raise load_error(str(error)) from None
    except Exception as error:
        _logger.exception("the model cannot be loaded")
        raise load_error("".join(traceback.format_exception_only(error))) from None


def response(**outputs: NDArray[np.object_]) -> Any:
    """A response with BYTES outputs, from the elements of each."""
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, outputs[name]) for name in outputs])


class TritonRequest:
    """A request in Triton's Python backend: an `IncomingRequest` that is answered once, by `respond` or `fail`.

    Args:
        request: Triton's own object.
        call_lock: held during each call into tritonserver.

    Attributes:
        request_id: the caller's name for the request; may be empty.
        queue_timeout: the caller's Triton timeout in seconds; None for no limit.
    """

    is_streamed = False

    def __init__(self, request: Any, call_lock: threading.Lock) -> None:
        # Read now, because Triton frees the request when its response is sent.
        self.request_id = str(request.request_id())
        self.queue_timeout: float | None = request.timeout() / _MICROSECONDS or None
        self._parameters = request.parameters()
        self._request = request
        self._unread = {"IMAGE", "REQUEST"}
        self._sender = request.get_response_sender()
        self._call_lock = call_lock

    @property
    def traceparent(self) -> str:
        """The caller's W3C trace context, if Triton is configured to forward that header; may be empty."""
        parameters: dict[str, object] = json.loads(self._parameters or "{}")
        return str(parameters.get("traceparent", ""))

    def input(self, name: str) -> NDArray[np.object_]:
        """The elements of a BYTES input, in the shape that the caller sent. Each can be read once."""
        elements: NDArray[np.object_] = pb_utils.get_input_tensor_by_name(self._request, name).as_numpy()
        self._unread.remove(name)
        if not self._unread:
            # The originals lie in memory shared with tritonserver, which is freed with the last reference to the
            # request. It is small, and an image may wait for long.
            self._request = None
        return elements

    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the request; False once it is answered. A round-trip to tritonserver."""
        # With the response, Triton frees what is read here, and crashes if it is read all the same.
        with self._call_lock:
            return self._sender is not None and bool(self._sender.is_cancelled())

    def respond(self, elements: Sequence[bytes]) -> None:
        """Send the response: one RESPONSE for each batch element.

        Raises:
            NoRoomError: there is no room for it in the memory shared with tritonserver.
        """
        _check_room(sum(map(len, elements)))
        self.reply(RESPONSE=np.array(elements, dtype=np.object_).reshape(-1, 1))

    def reply(self, **outputs: NDArray[np.object_]) -> None:
        """Send a small response with these BYTES outputs."""
        self._send(response(**outputs))

    def fail(self, status: grpc.StatusCode, message: str) -> None:
        """Send an error. Triton knows INVALID_ARGUMENT, UNAVAILABLE and CANCELLED. DEADLINE_EXCEEDED becomes
        UNAVAILABLE, and other statuses INTERNAL.
        """
        code = getattr(pb_utils.TritonError, _ERROR_CODES.get(status, "INTERNAL"))
        error = pb_utils.TritonError(message, code)
        self._send(pb_utils.InferenceResponse(output_tensors=[], error=error))

    def emit(self, event: bytes) -> None:
        """Not for a unary request.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a unary request has no events")

    def end(self) -> None:
        """Not for a unary request.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a unary request has no events")

    def _send(self, *message: Any) -> None:
        with self._call_lock:
            try:
                self._sender.send(*message, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            finally:
                self._request = self._sender = None


class TritonStream(TritonRequest):
    """A request to a decoupled model: an `IncomingRequest` that is answered by `emit` and `end`."""

    is_streamed = True

    def emit(self, event: bytes) -> None:
        """Send an event."""
        with self._call_lock:
            self._sender.send(response(RESPONSE=np.array([event], dtype=np.object_)))

    def end(self) -> None:
        """End the stream."""
        self._send()


def _check_room(response_bytes: int) -> None:
    """Check that a response fits into the shared memory: if sending fails, Triton takes no error in its place.

    Raises:
        NoRoomError: it may not fit.
    """
    free = shutil.disk_usage(_SHARED_MEMORY).free if response_bytes > _LARGE_RESPONSE_BYTES else inf
    if free < _RESPONSE_ROOM * response_bytes:
        raise NoRoomError(
            f"{_SHARED_MEMORY}: got a response of {response_bytes} bytes, expected at most half of {free} free"
        )


class Metric:
    """One time series on Triton's metrics page.

    Args:
        metric: Triton's own object.
        family: the family of the metric, referenced here because Triton drops a time series with its family.
        call_lock: held during each call into tritonserver.
    """

    def __init__(self, metric: Any, family: Any, call_lock: threading.Lock) -> None:
        self._metric = metric
        self._family = family
        self._call_lock = call_lock

    def increment(self, value: float) -> None:
        """Add to a counter or a gauge."""
        with self._call_lock:
            self._metric.increment(value)

    def set(self, value: float) -> None:
        """Set a gauge."""
        with self._call_lock:
            self._metric.set(value)

    def observe(self, value: float) -> None:
        """Add an observation to a histogram."""
        with self._call_lock:
            self._metric.observe(value)


class MetricFamily:
    """The time series of one name, by the values of their labels.

    Args:
        make: makes Triton's own object, of which several may have the same name.
        labels: those that all of its time series have.
        call_lock: held during each call into tritonserver.
        buckets: the upper bounds of a histogram's buckets.
        is_changing: whether time series are removed. Each then has an object of Triton's for itself, because Triton
            removes a time series with its family only.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        labels: Mapping[str, str],
        call_lock: threading.Lock,
        buckets: Sequence[float] = (),
        *,
        is_changing: bool = False,
    ) -> None:
        self._make = make
        self._family = None if is_changing else make()
        self._labels = dict(labels)
        self._call_lock = call_lock
        self._arguments = {"buckets": list(buckets)} if buckets else {}
        self._metrics: dict[tuple[str, ...], Metric] = {}

    def with_labels(self, **labels: str) -> Metric:
        """The time series with these labels, created if it is new."""
        values = tuple(labels.values())
        with self._call_lock:
            if values not in self._metrics:
                family = self._family or self._make()
                metric = family.Metric(labels={**self._labels, **labels}, **self._arguments)
                self._metrics[values] = Metric(metric, family, self._call_lock)
            return self._metrics[values]

    def replace(self, value: float, **labels: str) -> None:
        """Set the time series with these labels, and remove all others that nothing else refers to."""
        self.with_labels(**labels).set(value)  # first, so that there is always one
        values = tuple(labels.values())
        with self._call_lock:
            self._metrics = {values: self._metrics[values]}

    def remove(self, **labels: str) -> None:
        """Remove the time series that begin with these labels, and that nothing else refers to."""
        prefix = tuple(labels.values())
        with self._call_lock:
            for values in [each for each in self._metrics if each[: len(prefix)] == prefix]:
                del self._metrics[values]

    def clear(self) -> None:
        """Remove all time series that nothing else refers to."""
        with self._call_lock:
            self._metrics.clear()


class Triton:
    """Makes the objects through which the stub calls tritonserver, one call at a time.

    Version 2.51 crashes (SIGSEGV in Metric::~Metric, in the memory that it shares with the stub) if a metric changes
    while a response is sent or a cancellation is checked: in one of ten runs in which 32 callers disconnected at once.

    Args:
        labels: those of all metrics.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = labels
        self._call_lock = threading.Lock()

    def request(self, request: Any) -> TritonRequest:
        """A request that `execute` was handed."""
        return TritonRequest(request, self._call_lock)

    def stream(self, request: Any) -> TritonStream:
        """A request that `execute` of a decoupled model was handed."""
        return TritonStream(request, self._call_lock)

    def counter(self, name: str, description: str) -> MetricFamily:
        """A metric that only grows."""
        return MetricFamily(partial(_family, "COUNTER", name, description), self._labels, self._call_lock)

    def gauge(self, name: str, description: str) -> MetricFamily:
        """A metric that rises and falls."""
        return MetricFamily(partial(_family, "GAUGE", name, description), self._labels, self._call_lock)

    def changing_counter(self, name: str, description: str) -> MetricFamily:
        """A metric that only grows, and whose time series can be removed."""
        make = partial(_family, "COUNTER", name, description)
        return MetricFamily(make, self._labels, self._call_lock, is_changing=True)

    def changing_gauge(self, name: str, description: str) -> MetricFamily:
        """A metric that rises and falls, and whose time series can be removed."""
        make = partial(_family, "GAUGE", name, description)
        return MetricFamily(make, self._labels, self._call_lock, is_changing=True)

    def histogram(self, name: str, description: str, buckets: Sequence[float]) -> MetricFamily:
        """A distribution of observations."""
        return MetricFamily(partial(_family, "HISTOGRAM", name, description), self._labels, self._call_lock, buckets)


def _family(kind: str, name: str, description: str) -> Any:
    return pb_utils.MetricFamily(name=name, description=description, kind=getattr(pb_utils.MetricFamily, kind))
