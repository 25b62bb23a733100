"""The events of a stream as server-sent events. `event_schemas` describes their data."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from sse_starlette import ServerSentEvent

from florence2 import v1
from florence2.client.answers import Answer
from florence2.client.events import Event, Finished, ItemFound, StepFinished, StepStarted, TextDelta
from florence2.client.filters import Filters
from florence2.plain_data import json_text
from florence2.plan_requests import plan_name
from florence2.result_items import Score
from florence2.results import Detection, Detections, TextRegion, TextRegions
from florence2.web.problems import Problem
from florence2.web.rest.answer_data import answer_data


class EventWriter:
    """Writes the events of one stream.

    Args:
        filters: the conditions for items.
    """

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._of_steps: dict[int, Filters] = {}

    def write(self, event: Event) -> Iterator[ServerSentEvent]:
        """The event, or nothing if an item does not meet the conditions.

        Raises:
            InvalidArgumentError: a minimum score is given, but scores are unknown.
        """
        match event:
            case StepStarted(step, request, item):
                self._of_steps[step] = self._filters.of_step(request)
                about = {} if item is None else {"item": item}
                yield _event("step_started", {"step": step, "task": plan_name(request), **about})
            case TextDelta(step, text):
                yield _event("text_delta", {"step": step, "text": text})
            case ItemFound(step, item):
                for data in _items(item, self._of_steps.get(step, self._filters)):
                    yield _event("item_found", {"step": step, "item": data})
            case StepFinished(step, answer):
                data = {"step": step, **answer.to_dict()}
                if isinstance(answer.outcome, Answer):
                    data["result"] = self._result(answer.request, answer.outcome)
                yield _event("step_finished", data)
            case Finished(answer):
                yield _event("finished", answer_data(self._filters.apply(answer)))

    def _result(self, request: v1.TaskRequest, outcome: Answer) -> dict[str, Any]:
        return self._filters.of_step(request).apply(outcome).result.to_dict()


def error_event(problem: Problem) -> ServerSentEvent:
    """The event for an error."""
    return _event("error", problem.to_dict())


def _event(name: str, data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(json_text(data), event=name, sep="\n")


def _items(item: Detection | TextRegion, filters: Filters) -> list[dict[str, Any]]:
    """The item as in its result, or nothing if it does not meet the conditions."""
    score, label_score, location_score = map(_scores, (item.score, item.label_score, item.location_score))
    result: Detections | TextRegions
    if isinstance(item, Detection):
        outline = [item.polygons]
        result = Detections(item.box[np.newaxis], [item.label], score, outline, label_score, location_score)
    else:
        result = TextRegions(item.quad[np.newaxis], [item.label], score, label_score, location_score)
    items: list[dict[str, Any]] = result.filtered(filters.min_score, None, filters.labels).to_dict()["items"]
    return items


def _scores(score: Score) -> list[float] | None:
    return None if score is None else [score]
