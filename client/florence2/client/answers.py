"""Answers: results with everything that the server reports about them."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from florence2 import v1
from florence2.errors import Florence2Error
from florence2.plain_data import PlainData, error_data, number, size_list
from florence2.plan_results import PlanResult
from florence2.results import Result
from florence2.scores import TokenScores
from florence2.tasks import task_of

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True)
class Answer(PlainData):
    """An answer with everything that the server reports about it, as returned by `run`."""

    result: Result | PlanResult
    """The decoded answer, with coordinates in pixels of the image as displayed. It has scores if `token_scores` are
    known. A cascade or a task list has a `PlanResult`, made of the results of its `steps`."""
    text: str
    """The generated text including special tokens: `"</s><s>A dog.</s>"`. Empty if there are `steps`."""
    image_size: tuple[int, int]
    """Width and height of the image as displayed, in pixels."""
    finish_reason: FinishReason
    """`"stop"`: the model ended its answer. `"length"`: it was truncated at `max_new_tokens` or at the model's last
    position; `result` holds what is complete. With `steps`, `"length"` if any of them was truncated."""
    usage: v1.Usage
    """What the answer cost: tokens, and milliseconds in each stage. With `steps`, their sum."""
    token_scores: TokenScores | None = None
    """The log-probability of each generated token, and where it ends in `text`; None if the server does not report
    them, or if there are `steps`."""
    request_id: str = ""
    """Identifies the request in the server's log."""
    url: str = ""
    """The server that answered."""
    steps: list["StepAnswer"] = field(default_factory=list)
    """The steps of a cascade, or the requests of a task list in their order; empty for a single task."""

    @property
    def is_truncated(self) -> bool:
        """Whether the answer, or any of its steps, was truncated before the model ended it."""
        return self.finish_reason == "length"

    def to_dict(self) -> dict[str, Any]:
        """The result and what the server reports about it, without `token_scores`.

        `{"result": {...}, "text": ..., "image_size": [...], "finish_reason": ..., "usage": {...}, "request_id": ...,
        "url": ...}`; a cascade or a task list also has `"steps"`, without their results, which are in `"result"`.
        """
        steps = {"steps": [step.to_dict() for step in self.steps]} if self.steps else {}
        origin = {"request_id": self.request_id, "url": self.url}
        return {"result": self.result.to_dict(), **_report(self), **origin, **steps}


def _report(answer: Answer) -> dict[str, Any]:
    """What the server reports about an answer."""
    costs = {field.name: getattr(answer.usage, field.name) for field in answer.usage.DESCRIPTOR.fields}
    return {
        "text": answer.text,
        "image_size": size_list(answer.image_size),
        "finish_reason": answer.finish_reason,
        "usage": {name: number(cost) if isinstance(cost, float) else cost for name, cost in costs.items()},
    }


@dataclass(frozen=True)
class StepAnswer(PlainData):
    """How one step of a cascade, or one request of a task list, ended."""

    request: v1.TaskRequest
    """What was requested, with all options."""
    outcome: Answer | Florence2Error
    """The step's own answer, or its error."""
    item: int | None = None
    """Of a step about a region, the index of its detection; else None."""

    def to_dict(self) -> dict[str, Any]:
        """`{"task": ..., "text": ..., "finish_reason": ..., "usage": {...}, ...}`, or the error instead of a report."""
        name = self.request.WhichOneof("task") or task_of(self.request).name
        item = {} if self.item is None else {"item": self.item}
        report = _report(self.outcome) if isinstance(self.outcome, Answer) else error_data(self.outcome)
        return {"task": name, **item, **report}


class TruncatedAnswerError(Florence2Error):
    """The answer was truncated at `max_new_tokens` or at the model's last position.

    Raised by the task methods, because a bare result cannot say that something is missing. `answer.result` holds what
    is complete. `run` returns such an answer instead.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(
            f"the answer was cut after {answer.usage.generated_tokens} tokens; "
            "this error's answer.result holds what is complete"
        )
        self.answer = answer
        self.request_id, self.url = answer.request_id or None, answer.url or None

    def __reduce__(self) -> tuple[type["TruncatedAnswerError"], tuple[Answer]]:
        # By default an exception is unpickled from its message, but the constructor takes an answer.
        return type(self), (self.answer,)
