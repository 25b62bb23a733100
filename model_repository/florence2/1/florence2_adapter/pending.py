"""One Triton request that waits for its answer."""

import json
import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from florence2_adapter.job import Job


class PendingRequest:
    """Answers a Triton request once: with all its rows, or with the first error.

    Args:
        request: the Triton request, with tensors of shape (rows, 1).
        turn: held during each call into tritonserver; see `TritonPythonModel`.

    Attributes:
        received: when Triton handed it over, in seconds of the monotonic clock.
        request_id: the caller's name for the request; may be empty.
    """

    def __init__(self, request: Any, turn: threading.Lock) -> None:
        self.received = time.monotonic()
        self._request = request
        # Asked for now: when the answer is sent, Triton frees the request.
        self.request_id = str(request.request_id())
        self._parameters = request.parameters()
        self._sender = request.get_response_sender()
        self._lock = threading.Lock()
        # Triton frees what `is_cancelled` reads when the response is sent, and crashes if it reads that afterwards, so
        # the two calls must exclude each other.
        self._turn = turn
        self._sent = False
        self._answered = False
        self._jobs: list[Job] = []
        self._responses: list[bytes | None] = []

    @property
    def answered(self) -> bool:
        """Whether the response or an error was sent."""
        return self._answered

    @property
    def traceparent(self) -> str:
        """The caller's W3C trace context, where Triton was told to hand it over; may be empty."""
        parameters: dict[str, object] = json.loads(self._parameters or "{}")
        return str(parameters.get("traceparent", ""))

    def inputs(self, name: str) -> Any:
        """The elements of an input tensor, one a row."""
        return pb_utils.get_input_tensor_by_name(self._request, name).as_numpy()

    def expect_rows(self, rows: int) -> None:
        """Say how many rows make the answer."""
        self._responses = [None] * rows

    def add_job(self, job: Job) -> None:
        """Remember what the engine is asked, to be cancelled when its answer is of no use any more."""
        with self._lock:
            if not self._answered:
                self._jobs.append(job)
                return
        job.cancel()

    def succeed(self, row: int, response: bytes) -> None:
        """A row's response is there; with the last one, the answer is sent."""
        with self._lock:
            self._responses[row] = response
            if self._answered or None in self._responses:
                return
            self._answered = True
            self._jobs = []
        column = np.array(self._responses, dtype=np.object_).reshape(-1, 1)
        self._send(pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("RESPONSE", column)]))

    def fail(self, code: int, message: str) -> None:
        """Answer with an error, unless there is an answer already; what its other rows do is cancelled."""
        with self._lock:
            if self._answered:
                return
            self._answered = True
            jobs, self._jobs = self._jobs, []
        self._send(pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code)))
        for job in jobs:
            job.cancel()

    def cancelled_by_caller(self) -> bool:
        """Ask Triton whether the caller has left. A round trip to the server process."""
        with self._turn:
            cancelled: bool = not self._sent and self._request.is_cancelled()
        return cancelled

    def _send(self, response: Any) -> None:
        with self._turn:
            self._sent = True
            self._sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            # With them goes the image, which lies in the memory that the stub shares with Triton: nothing there is free
            # again before nobody here refers to the request.
            self._request = self._sender = None
