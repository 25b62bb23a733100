"""Runs the steps of one request on an engine in this process."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TypeAlias

from florence2.errors import InvalidArgumentError
from florence2.plan_events import PlannedStepEvents, last_event
from florence2.plans import Outcome, PlanRun, Step, is_single_step, with_result
from florence2.v1 import StreamEvent, TaskError, TaskRequest

from florence2_server.engine.engine import Engine
from florence2_server.engine.errors import EngineClosedError
from florence2_server.engine.generation import Generation
from florence2_server.engine.preparation import Preparation
from florence2_server.engine.token_stream import TokenStream
from florence2_server.stub.prompts import prompt_parts
from florence2_server.stub.responses import step_response
from florence2_server.v1.engine_pb2 import GeneratedTokens, GenerateRequest


@dataclass(frozen=True)
class _StepRun:
    """A step that has been started."""

    step: Step
    events: PlannedStepEvents


Report: TypeAlias = tuple[_StepRun, GeneratedTokens | Generation | TaskError]
"""A step's next tokens, its generation when that has ended, or why there is none."""


def prepare(preparation: Preparation, image: bytes, request: TaskRequest) -> Generation:
    """The generation for a task or a prompt, yet to be submitted.

    Args:
        preparation: prepares it.
        image: an image file, or its base64 text.
        request: a request that `florence2.prompts.check_request` accepts.

    Raises:
        InvalidArgumentError: the request or the image is invalid.
    """
    message = GenerateRequest(
        image=image, prompt=prompt_parts(request), generation=request.generation, adapter=request.adapter
    )
    return preparation.prepare(message)


class PlanExecution:
    """One request on its way to its response. All steps run at the same time, about one decoded image.

    Only `cancel` and `report` may be called from other threads.

    Args:
        engine: runs the generations.
        preparation: prepares them.
        image: an image file, or its base64 text.
        request: a request that `florence2.plans.check_plan` has accepted.
        is_streamed: whether events before the last one are wanted.
        report: called from other threads with what happens; hand it to `accept`. It must not block.
    """

    def __init__(
        self,
        engine: Engine,
        preparation: Preparation,
        image: bytes,
        request: TaskRequest,
        report: Callable[[Report], None],
        *,
        is_streamed: bool,
    ) -> None:
        self._engine = engine
        self._preparation = preparation
        self._image = image
        self._is_single = is_single_step(request)
        self._is_streamed = is_streamed
        self._report = report
        self._plan = PlanRun(request)
        self._startable = deque(self._plan.start())
        self._generations: list[Generation] = []  # they keep the decoded image for further steps
        self._is_cancelled = threading.Event()

    @property
    def is_done(self) -> bool:
        """Whether the last event has been returned."""
        return self._plan.result is not None

    @property
    def has_startable(self) -> bool:
        """Whether there are steps to start."""
        return bool(self._startable)

    def start_next(self) -> list[StreamEvent]:
        """Start a step. This decodes the image, which takes a while for the first step."""
        step = self._startable.popleft()
        run = _StepRun(step, PlannedStepEvents(step, is_single=self._is_single))
        events = run.events.start() if self._is_streamed else []
        try:
            self._submit(run)
        except InvalidArgumentError as error:
            self._report((run, TaskError(status="INVALID_ARGUMENT", message=str(error))))
        return events

    def accept(self, report: Report) -> list[StreamEvent]:
        """Go on with what was reported. Returns the events that follow from it."""
        run, happened = report
        if isinstance(happened, GeneratedTokens):
            return run.events.feed(
                happened.text,
                happened.token_log_probabilities,
                happened.token_ends,
                happened.image_size,
                happened.token_masses,
            )
        outcome = self._outcome(happened) if isinstance(happened, Generation) else happened
        outcome = with_result(run.step.request, outcome)
        events = run.events.finish(outcome) if self._is_streamed else []
        self._startable += self._plan.complete(run.step.number, outcome)
        if self._plan.result is not None:
            events.append(last_event(self._plan.result))
        return events

    def cancel(self) -> None:
        """Cancel what still runs; no effect once the request is answered."""
        self._is_cancelled.set()
        for generation in list(self._generations):
            generation.future.cancel()

    def _submit(self, run: _StepRun) -> None:
        generation = prepare(self._preparation, self._image, run.step.request)
        self._generations.append(generation)
        if self._is_streamed:
            stream = self._preparation.stream(generation)
            threading.Thread(target=self._follow, args=(run, generation, stream), daemon=True).start()
        else:
            generation.future.add_done_callback(lambda _: self._report((run, generation)))
        self._engine.submit(generation)
        if self._is_cancelled.is_set():  # while the image was decoded
            generation.future.cancel()

    def _follow(self, run: _StepRun, generation: Generation, stream: TokenStream) -> None:
        try:
            for tokens in stream:
                self._report((run, tokens))
        except (CancelledError, Exception) as error:  # noqa: BLE001 - it is the step's outcome
            self._report((run, _task_error(error)))
        else:
            self._report((run, generation))

    def _outcome(self, generation: Generation) -> Outcome:
        try:
            completion = generation.future.result()
        except (CancelledError, Exception) as error:  # noqa: BLE001 - it is the step's outcome
            return _task_error(error)
        return step_response(self._preparation.response(generation, completion))


def _task_error(error: BaseException) -> TaskError:
    if isinstance(error, CancelledError | EngineClosedError):
        return TaskError(status="CANCELLED", message="the transport was closed")
    return TaskError(status="INTERNAL", message=f"{type(error).__name__}: {error}")
