"""Takes requests, runs their plans, submits the generations to the engine, and answers.

Nothing here blocks. A request is admitted or refused; the generations of its plan wait in the admission queue until
they have a place at the engine; and whatever ends a generation (the engine, the caller, a deadline) advances its plan.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from functools import partial

import grpc
from florence2.errors import InvalidArgumentError
from florence2.plans import Outcome as PlanOutcome
from florence2.plans import Step, with_result
from florence2.tasks import task_of
from florence2.v1 import TaskError

from florence2_server.config import AdmissionConfig, RequestLimits
from florence2_server.stub.admission import AdmissionQueue, RefusedError
from florence2_server.stub.admission_metrics import AdmissionMetrics
from florence2_server.stub.answers import StreamedAnswer, UnaryAnswer
from florence2_server.stub.batch import ElementLimits, batch_elements, check_shapes
from florence2_server.stub.image_files import ImageFiles
from florence2_server.stub.incoming import IncomingRequest
from florence2_server.stub.metrics import RequestMetrics
from florence2_server.stub.outcomes import Outcome, StepOutcome
from florence2_server.stub.pending_request import ElementRun, PendingRequest, QueuedStep, status_of
from florence2_server.stub.request_log import RequestLog
from florence2_server.stub.responses import step_outcome
from florence2_server.stub.wire import encoding_of
from florence2_server.supervision.pending_generation import GenerationError, PendingGeneration
from florence2_server.supervision.supervisor import EngineSupervisor
from florence2_server.v1.engine_pb2 import GenerateResponse

_logger = logging.getLogger(__name__)

_CANCELLED = "the caller cancelled the request"
# A caller whose own deadline passes cancels the request at about the time when the stub notices that deadline.
_DEADLINE_TOLERANCE_SECONDS = 0.2
# A request that was checked for cancellation less than this ago is submitted without another check.
_CHECK_SECONDS = 0.1


class Dispatcher:
    """Answers requests. An error is returned only to the request that caused it.

    Args:
        engine: where generations are submitted.
        admission: the limits of what may wait.
        slots: the engine's number of slots.
        limits: a request over one of these is rejected right away.
        metrics, admission_metrics, log: record what happens.
        plans: runs what takes too long for a thread that delivers completions.
    """

    def __init__(
        self,
        engine: EngineSupervisor,
        admission: AdmissionConfig,
        slots: int,
        limits: RequestLimits,
        metrics: RequestMetrics,
        admission_metrics: AdmissionMetrics,
        log: RequestLog,
        plans: Executor,
    ) -> None:
        self._engine = engine
        self._limits = ElementLimits(limits, admission.plan_limits)
        self._metrics = metrics
        self._admission_metrics = admission_metrics
        self._log = log
        self._plans = plans
        self._files = ImageFiles()
        self._lock = threading.Lock()  # of the four below; nothing foreign is called while it is held
        self._queue: AdmissionQueue[tuple[QueuedStep, PendingGeneration]] = AdmissionQueue(admission, slots)
        self._pending: dict[PendingRequest, None] = {}  # in the order of arrival
        self._is_launching = False

    def dispatch(self, requests: Iterable[IncomingRequest]) -> None:
        """Take requests; each is answered later, on another thread, or refused at once. Does not block."""
        for incoming in requests:
            try:
                self._take(PendingRequest(incoming), incoming)
            except Exception:
                _logger.exception("a request could not be answered")
        self._launch()

    def pending(self) -> list[tuple[PendingRequest, bool]]:
        """The requests that are not answered, in the order of arrival, each with whether it still waits."""
        with self._lock:
            return [(each, each.admission is None or self._queue.is_waiting(each.admission)) for each in self._pending]

    def end_if_over(self, pending: PendingRequest, *, is_waiting: bool, ask_caller: bool) -> bool:
        """End a request that is no longer needed: its deadline has passed, or its caller has cancelled it.

        Args:
            pending: the request.
            is_waiting: whether none of its generations has been submitted.
            ask_caller: whether to find out if it is cancelled, a round-trip to tritonserver.
        """
        try:
            now = time.monotonic()
            is_late = pending.deadlines.passed(now, is_waiting=is_waiting)
            if not is_late and ask_caller and pending.is_cancelled():
                is_late = pending.deadlines.passed(now + _DEADLINE_TOLERANCE_SECONDS, is_waiting=is_waiting)
                if not is_late:
                    self._fail(pending, grpc.StatusCode.CANCELLED, _CANCELLED)
            if is_late:
                message = _deadline_message(now - pending.received, is_waiting=is_waiting)
                self._fail(pending, grpc.StatusCode.DEADLINE_EXCEEDED, message)
        except Exception as error:  # noqa: BLE001 - the others must not wait for this one
            self._fail_unexpectedly(pending, error)
        return pending.is_answered

    def show(self) -> None:
        """Show the state of the queue in the metrics."""
        with self._lock:
            statistics = self._queue.statistics
        self._admission_metrics.show(statistics)

    def waiting_adapters(self) -> set[str]:
        """The adapters that waiting generations name, whether or not there are such."""
        with self._lock:
            waiting = self._queue.waiting
        return {generation.request.adapter for _, generation in waiting}

    def plans(self) -> list[str]:
        """The ids of the plans under way that have several steps."""
        with self._lock:
            pending = list(self._pending)
        return [plan for each in pending for plan in each.plans]

    def _take(self, pending: PendingRequest, incoming: IncomingRequest) -> None:
        try:
            pending.answer = UnaryAnswer(incoming)
            for run in self._admit(pending, incoming):
                self._queue_steps(pending, run, run.plan.start())
        except RefusedError as refusal:
            self._refuse(pending, refusal)
        except InvalidArgumentError as error:
            self._fail(pending, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:  # noqa: BLE001 - a request that is never answered hangs forever
            self._fail_unexpectedly(pending, error)

    def _refuse(self, pending: PendingRequest, refusal: RefusedError) -> None:
        for outcome in pending.fail(grpc.StatusCode.UNAVAILABLE, str(refusal)):
            self._admission_metrics.count_refusal(refusal.reason, outcome.seconds)
            self._log.write(pending, outcome)

    def _admit(self, pending: PendingRequest, incoming: IncomingRequest) -> list[ElementRun]:
        """Admit a request, parse it, and check it."""
        if incoming.is_streamed:
            # Read before anything can fail, because errors have the request's encoding.
            requests = incoming.input("REQUEST")
            pending.answer = StreamedAnswer(incoming, encoding_of(requests))
            images = incoming.input("IMAGE")
        else:
            with self._lock:
                self._queue.check_requests()  # reading a large image takes longer than refusing it
            images, requests = incoming.input("IMAGE"), incoming.input("REQUEST")
        check_shapes(images, requests)
        with self._lock:
            pending.admission = self._queue.admit(sum(map(len, images.ravel())))
            self._pending[pending] = None
        elements = batch_elements(images, requests, self._limits, self._files)
        runs = [ElementRun(element, self._limits.plan) for element in elements]
        pending.expect(runs)
        return runs

    def _queue_steps(self, pending: PendingRequest, run: ElementRun, steps: Sequence[Step]) -> None:
        """Queue the generations of steps, and answer if there is nothing left to generate."""
        for step in steps:
            emitter = pending.answer.emitter(step, is_single=run.is_single_step)
            self._queue_step(QueuedStep(pending, run, step, emitter))
        result = run.plan.claim_result()
        if isinstance(result, TaskError):
            self._fail(pending, status_of(result), f"{run.element.label}{result.message}", run)
        elif result is not None:
            self._close(pending, pending.finish(run, result))

    def _queue_step(self, queued: QueuedStep) -> None:
        element, pending, emitter = queued.run.element, queued.pending, queued.emitter
        generation = PendingGeneration(
            element.generate_request(queued.step.request, queued.run.plan_id),
            partial(element.describe, pending.request_id),
            emitter.on_tokens if emitter else None,
        )
        if not pending.add(queued, generation):
            return
        generation.completion.add_done_callback(partial(self._finish, queued))
        with self._lock:
            if pending.admission is not None:
                self._queue.add(pending.admission, element.priority, (queued, generation))

    def _launch(self) -> None:
        """Submit the generations that have a place. One thread does it at a time, so that they keep their order."""
        with self._lock:
            if self._is_launching:  # that thread will find whatever was queued
                return
            self._is_launching = True
        while (launched := self._next()) is not None:
            self._submit(*launched)

    def _next(self) -> tuple[QueuedStep, PendingGeneration, bool] | None:
        """The next generation that has a place, and whether it is the first of its request."""
        with self._lock:
            while (launched := self._queue.launch()) is not None:
                queued, generation = launched
                if not (queued.pending.is_answered or generation.completion.cancelled()):
                    queued.is_launched = True
                    is_first, queued.pending.has_started = not queued.pending.has_started, True
                    return queued, generation, is_first
                self._queue.land()
            self._is_launching = False
            return None

    def _submit(self, queued: QueuedStep, generation: PendingGeneration, is_first: bool) -> None:
        try:
            has_waited = time.monotonic() - queued.pending.checked > _CHECK_SECONDS
            if has_waited and self.end_if_over(queued.pending, is_waiting=is_first, ask_caller=True):
                return
            # Not before: of a request that waits, there is one copy of the image.
            queued.run.element.image.write_to(generation.request)
            queued.has_file = bool(generation.request.image_file)
            self._engine.submit(generation)
        except Exception as error:
            _logger.exception("a generation could not be submitted")
            generation.fail(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    def _finish(self, queued: QueuedStep, completion: "Future[GenerateResponse]") -> None:
        """Free the place of a generation that has ended, and advance its plan."""
        with self._lock:
            if queued.is_launched:
                self._queue.land()
        queued.pending.remove(queued)
        if queued.pending.is_answered:
            self._launch()
        elif queued.run.is_single_step:
            self._advance(queued, completion)
        else:
            # The completions of all generations come on one thread, and the response to a long plan takes a while.
            self._plans.submit(self._advance, queued, completion)

    def _advance(self, queued: QueuedStep, completion: "Future[GenerateResponse]") -> None:
        try:
            self._go_on(queued, completion)
        except Exception as error:  # noqa: BLE001 - a request that is never answered hangs forever
            self._fail_unexpectedly(queued.pending, error)
        self._launch()

    def _go_on(self, queued: QueuedStep, completion: "Future[GenerateResponse]") -> None:
        run, step, error = queued.run, queued.step, _error_of(completion)
        if error and error.is_culprit:
            # All other steps are about the same image: each of them would crash several engines, too.
            self._fail(queued.pending, error.status, f"{run.element.label}{error}", run)
            return
        if error and queued.has_file and error.status is grpc.StatusCode.FAILED_PRECONDITION:
            self._files.stop(str(error))
            run.element.image.leave_file()
            self._queue_step(QueuedStep(queued.pending, run, step, queued.emitter, queued.since))
            return
        outcome = with_result(step.request, step_outcome(completion))
        run.steps.append(_step_outcome(queued, outcome, completion))
        if queued.emitter:
            queued.emitter.finish(outcome)
        self._queue_steps(queued.pending, run, run.plan.complete(step.number, outcome))

    def _fail(
        self, pending: PendingRequest, status: grpc.StatusCode, message: str, culprit: ElementRun | None = None
    ) -> None:
        self._close(pending, pending.fail(status, message, culprit))

    def _fail_unexpectedly(self, pending: PendingRequest, error: Exception) -> None:
        _logger.exception("a request failed unexpectedly", exc_info=error)
        self._fail(pending, grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

    def _close(self, pending: PendingRequest, outcomes: Iterable[Outcome]) -> None:
        """Forget a request that is answered, and record its outcomes."""
        if not pending.is_answered:
            return
        with self._lock:
            self._pending.pop(pending, None)
            if pending.admission is not None:
                self._queue.release(pending.admission)
        for outcome in outcomes:
            self._metrics.observe(outcome)
            self._log.write(pending, outcome)


def _step_outcome(queued: QueuedStep, outcome: PlanOutcome, completion: "Future[GenerateResponse]") -> StepOutcome:
    task = task_of(queued.step.request).name
    if isinstance(outcome, TaskError):
        return StepOutcome(task, status_of(outcome))
    return StepOutcome(task, grpc.StatusCode.OK, time.monotonic() - queued.since, completion.result())


def _deadline_message(seconds: float, *, is_waiting: bool) -> str:
    state = "was still waiting" if is_waiting else "was not answered"
    return f"deadline exceeded: the request {state} after {seconds:.3f} s"


def _error_of(completion: "Future[GenerateResponse]") -> GenerationError | None:
    """The error with which a generation ended; None if it ended otherwise."""
    error = None if completion.cancelled() else completion.exception()
    return error if isinstance(error, GenerationError) else None
