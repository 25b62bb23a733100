"""A request that has not been answered yet."""

import logging
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import grpc
from florence2.plans import PlanLimits, PlanRun, Step, is_single_step, plan_name
from florence2.v1 import TaskError, TaskResponse

from florence2_server.stub.admission import Admission
from florence2_server.stub.answers import Answer, StepEmitter
from florence2_server.stub.batch import BatchElement
from florence2_server.stub.incoming import IncomingRequest, NoRoomError
from florence2_server.stub.outcomes import UNKNOWN_TASK, Outcome, StepOutcome
from florence2_server.supervision.pending_generation import PendingGeneration

_logger = logging.getLogger(__name__)


class ElementRun:
    """The plan of one batch element, under way.

    Args:
        element: the batch element.
        limits: of its plan.

    Attributes:
        plan: hands out the steps.
        plan_id: identifies the plan to the engine; empty if it has a single step.
        steps: how those that have ended did.
    """

    def __init__(self, element: BatchElement, limits: PlanLimits) -> None:
        self.element = element
        self.plan = PlanRun(element.request, limits)
        self.plan_id = "" if is_single_step(element.request) else uuid.uuid4().hex
        self.steps: list[StepOutcome] = []

    @property
    def is_single_step(self) -> bool:
        """Whether the request is a task or a prompt."""
        return is_single_step(self.element.request)


@dataclass(eq=False)
class QueuedStep:
    """A step whose generation is queued or at the engine.

    Attributes:
        pending: the request.
        run: the batch element that the step belongs to.
        step: what is generated.
        emitter: sends the step's events; None if the answer is not a stream.
        since: when the step could start, in seconds of the monotonic clock.
        is_launched: whether its generation has a place at the engine.
        has_file: whether the message to the engine names a file.
    """

    pending: "PendingRequest"
    run: ElementRun
    step: Step
    emitter: StepEmitter | None
    since: float = field(default_factory=time.monotonic)
    is_launched: bool = False
    has_file: bool = False


@dataclass(frozen=True)
class Deadlines:
    """When a request is no longer needed, in seconds of the monotonic clock; None for no limit.

    Attributes:
        answer: the answer is due.
        start: if the request still waits then, it is not started: Triton's own timeout.
    """

    answer: float | None
    start: float | None

    @classmethod
    def of(cls, received: float, timeouts: Sequence[float], queue_timeout: float | None) -> "Deadlines":
        """The deadlines of a request with these timeouts, in seconds; 0 in `timeouts` is none."""
        given = [timeout for timeout in timeouts if timeout]
        return cls(received + min(given) if given else None, received + queue_timeout if queue_timeout else None)

    def passed(self, now: float, *, is_waiting: bool) -> bool:
        """Whether a deadline has passed."""
        due = [each for each in (self.answer, self.start if is_waiting else None) if each is not None]
        return bool(due) and now >= min(due)


class PendingRequest:
    """Answers a request once: with the responses to all its batch elements, or with the first error.

    Args:
        incoming: the request.

    Attributes:
        received: when the stub received it, in seconds of the monotonic clock.
        deadlines: set once the request is parsed.
        admission: its place in the admission queue; None until it is admitted.
        checked: when it was last checked whether the caller has cancelled it.
        has_started: whether one of its generations has been submitted; its owner holds a lock.
    """

    def __init__(self, incoming: IncomingRequest) -> None:
        self.received = self.checked = time.monotonic()
        self.deadlines = Deadlines(None, None)
        self.admission: Admission | None = None
        self._incoming = incoming
        self._lock = threading.Lock()
        self._is_answered = False
        self.has_started = False
        self._answer: Answer | None = None
        self._runs: list[ElementRun] = []
        self._generations: dict[QueuedStep, PendingGeneration] = {}
        self._responses: dict[ElementRun, TaskResponse] = {}

    @property
    def request_id(self) -> str:
        """The caller's name for the request; may be empty."""
        return self._incoming.request_id

    @property
    def traceparent(self) -> str:
        """The caller's W3C trace context; may be empty."""
        return self._incoming.traceparent

    @property
    def is_answered(self) -> bool:
        """Whether a response or an error has been sent, or is being sent."""
        return self._is_answered

    @property
    def generations(self) -> list[PendingGeneration]:
        """The generations that have not ended."""
        with self._lock:
            return list(self._generations.values())

    @property
    def plans(self) -> list[str]:
        """The ids of its plans with several steps."""
        return [run.plan_id for run in self._runs if run.plan_id]

    @property
    def answer(self) -> Answer:
        """Sends the answer."""
        assert self._answer is not None, "set before anything is sent"
        return self._answer

    @answer.setter
    def answer(self, answer: Answer) -> None:
        self._answer = answer

    def expect(self, runs: Sequence[ElementRun]) -> None:
        """Set the parts that the answer consists of."""
        self._runs = list(runs)
        timeouts = [run.element.request.timeout_seconds for run in runs]
        self.deadlines = Deadlines.of(self.received, timeouts, self._incoming.queue_timeout)

    def add(self, queued: QueuedStep, generation: PendingGeneration) -> bool:
        """Tie a generation to this request, which cancels it if it fails first. False if it is answered already."""
        with self._lock:
            if not self._is_answered:
                self._generations[queued] = generation
            return not self._is_answered

    def remove(self, queued: QueuedStep) -> None:
        """Forget a generation that has ended."""
        with self._lock:
            self._generations.pop(queued, None)

    def finish(self, run: ElementRun, result: TaskResponse) -> list[Outcome]:
        """Add the response to one batch element; the last one completes the answer, which is sent.

        Returns:
            the outcomes of all batch elements if the request is answered now; else an empty list.
        """
        with self._lock:
            self._responses[run] = result
            if self._is_answered or len(self._responses) < len(self._runs):
                return []
        data = self.answer.serialized([(self._responses[run], run.element.encoding) for run in self._runs])
        with self._lock:
            if self._is_answered:
                return []
            self._is_answered = True
        return self._outcomes(self._send(data), None)

    def fail(self, status: grpc.StatusCode, message: str, culprit: ElementRun | None = None) -> list[Outcome]:
        """Send an error unless the request is answered already, and cancel what is still generated for it.

        Args:
            status: the gRPC status.
            message: the reason.
            culprit: the batch element that failed; None if all of them end for the same reason.

        Returns:
            the outcomes of all batch elements if the request is answered now; else an empty list.
        """
        with self._lock:
            if self._is_answered:
                return []
            self._is_answered = True
            generations, self._generations = self._generations, {}
        try:
            self.answer.fail(status, message)
        finally:
            for generation in generations.values():
                generation.cancel()
        return self._outcomes(status, culprit)

    def is_cancelled(self) -> bool:
        """Whether the caller has cancelled the request. A round-trip to tritonserver."""
        self.checked = time.monotonic()
        return not self._is_answered and self._incoming.is_cancelled()

    def _send(self, data: Sequence[bytes]) -> grpc.StatusCode:
        """Send the response. Returns how the request ends."""
        try:
            self.answer.succeed(data)
        except NoRoomError as error:
            self.answer.fail(grpc.StatusCode.UNAVAILABLE, str(error))
            return grpc.StatusCode.UNAVAILABLE
        except Exception:
            # Triton takes no second response to a request, so that the caller cannot be answered any more.
            _logger.exception("a response could not be sent; its caller waits until its deadline")
            return grpc.StatusCode.INTERNAL
        return grpc.StatusCode.OK

    def _outcomes(self, status: grpc.StatusCode, culprit: ElementRun | None) -> list[Outcome]:
        seconds = time.monotonic() - self.received
        if not self._runs:
            return [Outcome(UNKNOWN_TASK, status, seconds)]
        outcomes = []
        for run in self._runs:
            own = status if culprit in (None, run) else grpc.StatusCode.CANCELLED
            own = grpc.StatusCode.OK if culprit is not None and run in self._responses else own
            request = run.element.request
            task = plan_name(request)
            steps = [replace(step, seconds=seconds) for step in run.steps] if run.is_single_step else run.steps
            outcomes.append(Outcome(task, own, seconds, tuple(steps), run.is_single_step, request.adapter))
        return outcomes


def status_of(error: TaskError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return grpc.StatusCode[error.status]
