"""Triton requests -> engine calls, as many at once as the engine has slots.

`dispatch` blocks until there is a slot. That is the backpressure: what does not fit stays in Triton's queue, where
priorities, limits, timeouts and metrics apply to it.
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
import triton_python_backend_utils as pb_utils
from florence2.engine.v1.engine_pb2 import GenerateRequest, GenerateResponse
from florence2.errors import InvalidArgumentError
from florence2.messages import set_result
from florence2.parsing import decode
from florence2.prompts import check_request
from florence2.scores import TokenScores
from florence2.tasks import task_of
from florence2.v1 import TaskRequest, TaskResponse

from florence2_adapter.config import RequestLimits
from florence2_adapter.image_files import ImageFile, ImageFiles, image_hash
from florence2_adapter.job import EngineCallError, Job
from florence2_adapter.metrics import Metrics
from florence2_adapter.outcomes import UNKNOWN_TASK, Outcome, task_name
from florence2_adapter.pending import PendingRequest
from florence2_adapter.prompts import prompt_parts
from florence2_adapter.request_log import RequestLog
from florence2_adapter.slots import Slots
from florence2_adapter.statuses import triton_code
from florence2_adapter.supervisor import EngineSupervisor
from florence2_adapter.wire import Encoding, parse_request, serialize_response

_logger = logging.getLogger(__name__)

# Asking Triton whether a caller has left is a round trip to its process: often enough to free slots soon, no oftener.
_CANCELLATION_SWEEP_SECONDS = 0.1
_SHOWN_HASH = 16  # hexadecimal digits of an image's SHA-256


@dataclass(frozen=True)
class Row:
    """One question of a Triton request, parsed and checked.

    Attributes:
        label: names the row in an error's message, where there are several.
        image_file: holds the image if the call does not.
    """

    index: int
    label: str
    request: TaskRequest
    encoding: Encoding
    call: GenerateRequest
    image_file: ImageFile | None

    def describe(self, request_id: str) -> str:
        """Names the question, for whoever has to find out what it does to the engine."""
        image = image_hash(self._image())[:_SHOWN_HASH]
        return f"request id {request_id!r}, {self.label}image {image}, task {task_name(self.request)}"

    def without_file(self) -> "Row":
        """The same row with the image in the call."""
        call = GenerateRequest(image=self._image(), prompt=self.call.prompt, generation=self.call.generation)
        return replace(self, call=call, image_file=None)

    def _image(self) -> bytes:
        return self.image_file.read() if self.image_file else self.call.image


class Dispatcher:
    """Submits requests to the engine and sends its responses. An error is returned only to the request that caused it.

    Args:
        engine: where requests are submitted.
        slots: how many requests may be in the engine at once.
        limits: a request over one of these is rejected right away.
        metrics, log: record each outcome.
        turn: held during each call into tritonserver; see `TritonPythonModel`.
    """

    def __init__(
        self,
        engine: EngineSupervisor,
        slots: int,
        limits: RequestLimits,
        metrics: Metrics,
        log: RequestLog,
        turn: threading.Lock,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._log = log
        self._turn = turn
        self._files = ImageFiles()
        self._slots = Slots(slots, metrics.set_slots_in_use)
        self._lock = threading.Lock()
        self._pending: set[PendingRequest] = set()
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="cancellations", daemon=True)
        self._sweeper.start()

    def dispatch(self, requests: Sequence[Any]) -> None:
        """Start the calls of the Triton requests of a batch; blocks until each has a slot."""
        for pending in [PendingRequest(request, self._turn) for request in requests]:
            self._dispatch(pending)

    def _dispatch(self, pending: PendingRequest) -> None:
        try:
            rows = _rows(pending, self._limits, self._files)
            pending.expect_rows(len(rows))
            with self._lock:
                self._pending.add(pending)
            for row in rows:
                self._start(pending, row)
        except InvalidArgumentError as error:
            pending.fail(pb_utils.TritonError.INVALID_ARG, str(error))
            self._report(pending, None, grpc.StatusCode.INVALID_ARGUMENT)
        except Exception as error:  # noqa: BLE001 - a request whose sender is never used hangs for ever
            self._fail_unexpectedly(pending, error)
        self._forget_answered(pending)

    def close(self) -> None:
        """Stop looking for cancelled requests."""
        self._closed.set()
        self._sweeper.join()

    def _start(self, pending: PendingRequest, row: Row) -> None:
        self._slots.take()
        if (
            time.monotonic() - pending.received > _CANCELLATION_SWEEP_SECONDS
        ):  # it waited, behind others of its batch perhaps
            self._fail_if_cancelled(pending)
        if pending.answered:  # an earlier row failed, or the caller left while this one waited
            self._slots.give_back()
            self._report(pending, row, grpc.StatusCode.CANCELLED)
            return
        self._submit(pending, row)

    def _submit(self, pending: PendingRequest, row: Row) -> None:
        job = Job(row.call, partial(row.describe, pending.request_id))
        job.outcome.add_done_callback(partial(self._finish, pending, row))
        pending.add_job(job)
        self._engine.submit(job)

    def _finish(self, pending: PendingRequest, row: Row, outcome: "Future[GenerateResponse]") -> None:
        try:
            if row.image_file and not pending.answered and (reason := _unreadable_file(outcome)):
                self._files.stop(reason)
                self._submit(pending, row.without_file())  # in the same slot
                return
        except Exception as error:  # noqa: BLE001 - a request whose sender is never used hangs for ever
            self._fail_unexpectedly(pending, error)
        self._slots.give_back()
        try:
            self._tell(pending, row, outcome)
        except Exception as error:  # noqa: BLE001 - a request whose sender is never used hangs for ever
            self._fail_unexpectedly(pending, error)
        self._forget_answered(pending)

    def _tell(self, pending: PendingRequest, row: Row, outcome: "Future[GenerateResponse]") -> None:
        """Answer with what became of a row. Nothing is raised of it: its trace would hold what holds the outcome."""
        if outcome.cancelled():
            pending.fail(pb_utils.TritonError.CANCELLED, "the caller left")
            self._report(pending, row, grpc.StatusCode.CANCELLED)
            return
        error = outcome.exception()
        if isinstance(error, EngineCallError):
            pending.fail(triton_code(error.status), f"{row.label}{error}")
            self._report(pending, row, error.status)
            return
        answer = outcome.result()
        pending.succeed(row.index, _response(row, answer))
        self._report(pending, row, grpc.StatusCode.OK, answer)

    def _sweep(self) -> None:
        while not self._closed.wait(_CANCELLATION_SWEEP_SECONDS):
            with self._lock:
                pending = [request for request in self._pending if not request.answered]
            for request in pending:
                self._fail_if_cancelled(request)

    def _fail_if_cancelled(self, pending: PendingRequest) -> None:
        try:
            if pending.cancelled_by_caller():
                pending.fail(pb_utils.TritonError.CANCELLED, "the caller left")
        except Exception as error:  # noqa: BLE001 - the sweep has to go on for the others
            self._fail_unexpectedly(pending, error)

    def _forget_answered(self, pending: PendingRequest) -> None:
        if pending.answered:
            with self._lock:
                self._pending.discard(pending)

    def _fail_unexpectedly(self, pending: PendingRequest, error: Exception) -> None:
        _logger.exception("a request failed", exc_info=error)
        pending.fail(pb_utils.TritonError.INTERNAL, f"{type(error).__name__}: {error}")
        self._report(pending, None, grpc.StatusCode.INTERNAL)

    def _report(
        self,
        pending: PendingRequest,
        row: Row | None,
        status: grpc.StatusCode,
        answer: GenerateResponse | None = None,
    ) -> None:
        """Count and log what became of a question, after its caller knows."""
        task = UNKNOWN_TASK if row is None else task_name(row.request)
        outcome = Outcome(task, status, time.monotonic() - pending.received, answer)
        self._metrics.observe(outcome)
        self._log.write(pending, outcome)


def _unreadable_file(outcome: "Future[GenerateResponse]") -> str | None:
    """Why the engine could not read the image's file, if that is how a call ended."""
    error = None if outcome.cancelled() else outcome.exception()
    is_unreadable = isinstance(error, EngineCallError) and error.status is grpc.StatusCode.FAILED_PRECONDITION
    return str(error) if is_unreadable else None


def _rows(pending: PendingRequest, limits: RequestLimits, files: ImageFiles) -> list[Row]:
    images, requests = pending.inputs("IMAGE"), pending.inputs("REQUEST")
    for name, tensor in (("IMAGE", images), ("REQUEST", requests)):
        if tensor.size == 0 or tensor.shape != images.shape:
            raise InvalidArgumentError.of_field(f"{name} shape", tensor.shape, "(rows, 1), alike for IMAGE and REQUEST")
    pairs = zip(images.ravel(), requests.ravel(), strict=True)
    return [
        _row(index, f"row {index}: " if len(images) > 1 else "", image, request, limits, files)
        for index, (image, request) in enumerate(pairs)
    ]


def _row(index: int, label: str, image: bytes, data: bytes, limits: RequestLimits, files: ImageFiles) -> Row:
    try:
        limits.check(image, data)
        request, encoding = parse_request(data)
        check_request(request)
        call = GenerateRequest(prompt=prompt_parts(request), generation=request.generation)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{label}{error}") from None
    if file := files.file(image):
        call.image_file, call.image_file_bytes = str(file.path), file.size
    else:
        call.image = image
    return Row(index, label, request, encoding, call, file)


def _response(row: Row, answer: GenerateResponse) -> bytes:
    response = TaskResponse(
        text=answer.text,
        image_size=answer.image_size,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        token_log_probabilities=answer.token_log_probabilities,
        token_ends=answer.token_ends,
    )
    if not row.request.raw:
        token_scores = TokenScores.of_response(response)
        set_result(response, decode(task_of(row.request) or "", answer.text, answer.image_size, token_scores))
    return serialize_response(response, row.encoding)
