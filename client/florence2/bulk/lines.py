"""The JSON of a run's records: results and errors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from florence2.bulk.items import Item
from florence2.bulk.tasks import BulkTask
from florence2.client.answers import Answer
from florence2.errors import Florence2Error
from florence2.results import Detections, Segmentation, TextRegions


def kept(answer: Answer, filters: Mapping[str, Any]) -> Answer:
    """An answer with the items that the filters keep; texts and cascades have none."""
    if not filters:
        return answer
    steps = [
        replace(step, outcome=kept(step.outcome, filters)) if isinstance(step.outcome, Answer) else step
        for step in answer.steps
    ]
    result = answer.result
    if isinstance(result, Detections | Segmentation | TextRegions):
        return replace(answer, result=result.filtered(**filters))
    return replace(answer, steps=steps)


def result_line(item: Item, tasks: Sequence[BulkTask], answer: Answer) -> str:
    """The results about an image: `{"id", "image", "image_size", "results": {task: ...}, "usage"}`.

    `truncated` lists the tasks whose answers ended at their length limit. It is left out if there are no such tasks.
    """
    outcomes = _outcomes(tasks, answer)
    line: dict[str, Any] = {
        "id": item.id,
        "image": item.image,
        "image_size": list(answer.image_size),
        "results": {name: _result(outcome) for name, outcome in outcomes},
    }
    if truncated := [name for name, outcome in outcomes if isinstance(outcome, Answer) and outcome.is_truncated]:
        line["truncated"] = truncated
    usage = {field.name: getattr(answer.usage, field.name) for field in answer.usage.DESCRIPTOR.fields}
    return _json({**line, "usage": usage})


def error_line(item: Item, error: Exception, task: str | None = None) -> str:
    """Why an image failed: `{"id", "image", "error": {"type", "message"}}`, and `task` if only that one failed."""
    line: dict[str, Any] = {"id": item.id, "image": item.image}
    if task is not None:
        line["task"] = task
    return _json({**line, "error": _error(error)})


def failed_task(tasks: Sequence[BulkTask], answer: Answer) -> tuple[Florence2Error, str] | None:
    """The error of the first task that failed, and the task's name; None if none did."""
    for name, outcome in _outcomes(tasks, answer):
        if isinstance(outcome, Florence2Error):
            return outcome, name
    return None


def _outcomes(tasks: Sequence[BulkTask], answer: Answer) -> list[tuple[str, Answer | Florence2Error]]:
    if len(tasks) == 1:
        return [(tasks[0].name, answer)]
    return [(task.name, step.outcome) for task, step in zip(tasks, answer.steps, strict=True)]


def _result(outcome: Answer | Florence2Error) -> Any:
    if isinstance(outcome, Florence2Error):
        return {"error": _error(outcome)}
    return outcome.result.to_dict()


def _error(error: Exception) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _json(line: Mapping[str, Any]) -> str:
    text = json.dumps(line, ensure_ascii=False)
    # A file's name that is not UTF-8 has surrogates, which neither a file nor the state can hold.
    return text if text.isascii() or _is_unicode(text) else json.dumps(line)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
