"""The events of a request's steps, as all transports stream them."""

from collections.abc import Sequence

from florence2 import v1
from florence2.locations import ImageSizeLike
from florence2.plans import Step
from florence2.step_outcomes import Outcome, step_response
from florence2.streaming import StepEvents


class PlannedStepEvents:
    """The events of one step, from its start to its end. Not thread-safe.

    Args:
        step: the step.
        is_single: whether it is the whole request; then its start and its end are no events.
    """

    def __init__(self, step: Step, *, is_single: bool) -> None:
        self._step = step
        self._is_single = is_single
        self._events = StepEvents(step.request, step.number)

    def start(self) -> list[v1.StreamEvent]:
        """The step starts."""
        if self._is_single:
            return []
        started = v1.StepStarted(request=self._step.request, item=self._step.item)
        return [v1.StreamEvent(step=self._step.number, step_started=started)]

    def feed(
        self,
        text: str,
        token_log_probabilities: Sequence[float],
        token_ends: Sequence[int],
        image_size: ImageSizeLike,
        token_masses: Sequence[float] = (),
    ) -> list[v1.StreamEvent]:
        """More tokens are certain; the arguments are those of `StepEvents.feed`."""
        return self._events.feed(text, token_log_probabilities, token_ends, image_size, token_masses)

    def finish(self, outcome: Outcome) -> list[v1.StreamEvent]:
        """The step ends.

        Args:
            outcome: how, with its result (`florence2.plans.with_result`).
        """
        events = [] if isinstance(outcome, v1.TaskError) else self._events.finish(outcome)
        if not self._is_single:
            response = step_response(self._step.request, outcome, self._step.item)
            events.append(v1.StreamEvent(step=self._step.number, step_response=response))
        return events


def last_event(result: Outcome) -> v1.StreamEvent:
    """The last event of a stream."""
    return v1.StreamEvent(error=result) if isinstance(result, v1.TaskError) else v1.StreamEvent(response=result)
