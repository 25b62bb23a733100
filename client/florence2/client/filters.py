"""The options that select items of a result. The client applies them to the decoded answer; they are not sent."""

from dataclasses import dataclass, replace
from typing import Any, Final

from florence2 import v1
from florence2._arguments import check_count, check_probability
from florence2.client.answers import Answer, StepAnswer
from florence2.errors import InvalidArgumentError
from florence2.options import FilterOptions
from florence2.plan_results import GroundedCaption, PlanResult, TaskResults
from florence2.result_items import check_labels
from florence2.results import Detections, Result, Segmentation, TextRegions
from florence2.tasks import AnswerForm, task_of

_WITHOUT_ITEMS: Final = frozenset({AnswerForm.TEXT, AnswerForm.REGION_TEXT})
_WITHOUT_LABELS: Final = frozenset({AnswerForm.BOXES, AnswerForm.POLYGONS})


@dataclass(frozen=True)
class Filters:
    """The conditions of `Items.filtered`, checked."""

    min_score: float | None = None
    max_items: int | None = None
    labels: frozenset[str] | None = None

    @classmethod
    def of_options(cls, options: FilterOptions) -> "Filters":
        """The conditions in a method's options.

        Raises:
            TypeError: an option has the wrong type.
            InvalidArgumentError: an option is out of range.
        """
        min_score, max_items, labels = options.get("min_score"), options.get("max_items"), options.get("labels")
        return cls(
            None if min_score is None else check_probability("min_score", min_score),
            None if max_items is None else check_count("max_items", max_items),
            None if labels is None else check_labels(labels),
        )

    def check(self, request: v1.TaskRequest) -> None:
        """Check that the conditions can apply to a request's results.

        Raises:
            InvalidArgumentError: one cannot. The message names it.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        if given:
            _check_applicable(request, given)

    def apply(self, answer: Answer) -> Answer:
        """The answer with the items that meet the conditions, also in its steps.

        Raises:
            InvalidArgumentError: scores are unknown, and `min_score` is given.
        """
        return answer if self == Filters() else self._applied(answer)

    def of_step(self, request: v1.TaskRequest) -> "Filters":
        """The conditions for a step's result: in a task list, `labels` does not apply to results without labels."""
        return replace(self, labels=None) if _form(request) in _WITHOUT_LABELS else self

    def _applied(self, answer: Answer) -> Answer:
        steps = [self._of_step(step) for step in answer.steps]
        return replace(answer, result=self._of_result(answer.result, steps), steps=steps)

    def _of_step(self, step: StepAnswer) -> StepAnswer:
        if not isinstance(step.outcome, Answer):
            return step
        return replace(step, outcome=self.of_step(step.request)._applied(step.outcome))

    def _of_result(self, result: Result | PlanResult, steps: list[StepAnswer]) -> Result | PlanResult:
        match result:
            case TaskResults():
                outcomes = [step.outcome for step in steps]
                return TaskResults([each.result if isinstance(each, Answer) else each for each in outcomes])
            case GroundedCaption(detections=Detections() as found):
                return replace(result, detections=found.filtered(self.min_score, self.max_items, self.labels))
            case Detections() | Segmentation() | TextRegions():
                return result.filtered(self.min_score, self.max_items, self.labels)
        return result


def _check_applicable(request: v1.TaskRequest, given: dict[str, Any]) -> None:
    tasks = list(request.task_list.tasks) or [request]
    if any(task.HasField("region_analysis") for task in tasks):
        _refuse(
            given, "because regions refer to their detections; use `max_regions`, or filter the result's detections"
        )
    forms = {_form(task) for task in tasks}
    if forms <= _WITHOUT_ITEMS:
        _refuse(given, "because the result is a text, which has no items")
    if forms <= _WITHOUT_ITEMS | _WITHOUT_LABELS and "labels" in given:
        _refuse({"labels": given["labels"]}, "because the result has no labels")


def _form(request: v1.TaskRequest) -> AnswerForm:
    """The form of the answer that the conditions apply to."""
    return AnswerForm.LABELED_BOXES if request.HasField("caption_grounding") else task_of(request).answer


def _refuse(given: dict[str, Any], reason: str) -> None:
    name, value = next(iter(given.items()))
    raise InvalidArgumentError.of_field(name, set(value) if name == "labels" else value, f"None, {reason}")
