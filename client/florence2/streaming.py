"""Turns the tokens of a generation into the events of a stream, while they are generated.

Text is sent as it comes. A detection or a text region is sent as soon as it is complete and no further text can change
it: then it is, with its scores, what `decode` returns for the whole answer.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, TypeAlias

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.locations import ImageSizeLike
from florence2.messages import to_message
from florence2.parsing import decode_settled
from florence2.results import Result
from florence2.scores import TokenScores
from florence2.tasks import AnswerForm, task_of

_Item: TypeAlias = v1.Detection | v1.TextRegion

# The forms of answers whose items are sent, with the number of locations in an item; 0 if it varies.
_ITEM_LOCATIONS: Final = {
    AnswerForm.LABELED_BOXES: 4,
    AnswerForm.BOXES: 4,
    AnswerForm.QUADS: 8,
    AnswerForm.LABELED_BOXES_OR_POLYGONS: 0,
}
# Text after which a polygon, or a list of boxes, goes on.
_OUTLINE: Final = re.compile("(?:<loc_[0-9]{1,3}>|<sep>|<poly>)*")


class StepEvents:
    """The events of one step of a request. Not thread-safe.

    Args:
        request: the step's own request: a task or a prompt.
        number: the step's number, for `StreamEvent.step`.
    """

    def __init__(self, request: v1.TaskRequest, number: int = 0) -> None:
        self._number = number
        self._text = ""
        self._items = 0
        form = task_of(request).answer
        self._growing = None if request.raw or form not in _ITEM_LOCATIONS else _GrowingAnswer(request)

    def feed(
        self,
        text: str,
        token_log_probabilities: Sequence[float],
        token_ends: Sequence[int],
        image_size: ImageSizeLike,
        token_masses: Sequence[float] = (),
    ) -> list[v1.StreamEvent]:
        """The events of the next tokens.

        If the tokens are impossible (`TokenScores` says which are), items are no longer sent. The response that
        contains these tokens cannot be decoded either, and so the step ends with an error.

        Args:
            text: the next piece of the generated text; may be empty.
            token_log_probabilities: of the next tokens, as in `TaskResponse`; empty if unknown.
            token_ends: of the next tokens, as in `TaskResponse`: offsets in the whole text.
            image_size: as in `TaskResponse`.
            token_masses: of the next tokens, as in `TaskResponse`; empty if unknown.
        """
        items: list[_Item] = []
        if self._growing is not None:
            try:
                items = self._growing.feed(text, token_log_probabilities, token_ends, image_size, token_masses)
            except InvalidArgumentError:
                self._growing = None
        return self._events(text, items)

    def finish(self, response: v1.TaskResponse) -> list[v1.StreamEvent]:
        """The remaining events, which make the stream equal to the response.

        Args:
            response: the step's response, with its result.
        """
        assert response.text.startswith(self._text), "tokens are sent only if they are certain"
        items: Sequence[_Item] = response.detections.detections or response.text_regions.text_regions
        return self._events(response.text[len(self._text) :], items[self._items :])

    def _events(self, text: str, items: Sequence[_Item]) -> list[v1.StreamEvent]:
        self._text += text
        self._items += len(items)
        events = [v1.StreamEvent(step=self._number, text_delta=text)] if text else []
        for item in items:
            event = v1.StreamEvent(step=self._number)
            if isinstance(item, v1.Detection):
                event.detection.CopyFrom(item)
            else:
                event.text_region.CopyFrom(item)
            events.append(event)
        return events


class _GrowingAnswer:
    """The part of an answer that still matters for its next items, so that each item is decoded about once."""

    def __init__(self, request: v1.TaskRequest) -> None:
        self._task = task_of(request)
        self._text = ""
        self._log_probabilities: list[float] = []
        self._masses: list[float] = []
        # Relative to the whole answer.
        self._ends: list[int] = []
        self._start = 0
        self._sent = 0

    def feed(
        self,
        text: str,
        log_probabilities: Sequence[float],
        ends: Sequence[int],
        image_size: ImageSizeLike,
        masses: Sequence[float],
    ) -> list[_Item]:
        """The items that are complete and certain with the next piece of text."""
        self._text += text
        self._log_probabilities += log_probabilities
        self._masses += masses
        self._ends += ends
        if not self._may_complete_an_item(text):
            return []
        settled = decode_settled(self._task, self._text, image_size, self._token_scores())
        items = _items(settled.result)[self._sent :]
        self._sent += len(items) - settled.passed
        self._drop(settled.resume)
        return items

    def _may_complete_an_item(self, text: str) -> bool:
        locations = _ITEM_LOCATIONS[self._task.answer]
        if locations == 0:
            return ">" in self._text and _OUTLINE.fullmatch(text) is None
        return ">" in text and self._text.count(">") >= locations * (self._sent + 1)

    def _token_scores(self) -> TokenScores | None:
        if not self._ends:
            return None
        ends = [end - self._start for end in self._ends]
        return TokenScores(tuple(self._log_probabilities), tuple(ends), tuple(self._masses) or None)

    def _drop(self, length: int) -> None:
        """Drop the beginning of the text, and the tokens that end there."""
        if length == 0:
            return
        self._start += len(self._text[:length].encode("utf-8", "surrogatepass"))
        self._text = self._text[length:]
        dropped = bisect_left(self._ends, self._start)
        # A token that adds nothing belongs to the text after it.
        dropped += self._ends[dropped : dropped + 1] == [self._start]
        del self._ends[:dropped], self._log_probabilities[:dropped], self._masses[:dropped]


def _items(result: Result) -> list[_Item]:
    match to_message(result):
        case v1.Detections(detections=detections):
            return list(detections)
        case v1.TextRegions(text_regions=text_regions):
            return list(text_regions)
    raise AssertionError("only detections and text regions are sent one by one")
