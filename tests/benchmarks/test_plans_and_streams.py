import itertools

import pytest
from florence2.v1 import StepResponse, TaskResponse, Usage

from benchmarks.comparison.streams import DifferentTextError, watch
from benchmarks.comparison.task_lists import in_a_request_each, in_one_request
from benchmarks.harness.requests import album_groups
from benchmarks.harness.spread import Spread
from benchmarks.harness.wire import Exchanged


class FakeCaller:
    """Answers each task with its name. An image counts as encoded for the first task of a server only."""

    def __init__(self) -> None:
        self._is_cached = (number > 0 for number in itertools.count())

    def send(self, image, request) -> Exchanged:
        if not request.HasField("task_list"):
            return Exchanged(self._answer(request), sent=len(image), received=1)
        steps = [StepResponse(response=self._answer(task)) for task in request.task_list.tasks]
        return Exchanged(TaskResponse(steps=steps), sent=len(image), received=1)

    def _answer(self, request) -> TaskResponse:
        assert not request.raw
        usage = Usage(image_embedding_cached=next(self._is_cached))
        return TaskResponse(text=request.WhichOneof("task"), usage=usage)


def test_a_task_list_sends_its_image_once_and_has_the_answers_of_single_requests():
    requests = album_groups(1, seed=0)[0].requests(attempt=0)
    one = in_one_request(FakeCaller(), requests)
    each = in_a_request_each(FakeCaller(), requests, at_once=1)
    assert one.texts == each.texts == tuple(request.task for request in requests)
    assert one.encodings == each.encodings == 1
    assert (one.sent, each.sent) == (len(requests[0].image), 8 * len(requests[0].image))


def test_the_events_of_a_stream_are_timed():
    watched = watch(lambda: iter(["A ", "dog.", "A dog."]), "A dog.")
    assert watched.events == 3
    assert 0 < watched.first <= watched.last


@pytest.mark.parametrize("events", [["A ", "dog", "A dog."], ["A ", "dog.", "A cat."]])
def test_a_stream_whose_pieces_are_not_the_text_fails_the_run(events):
    with pytest.raises(DifferentTextError):
        watch(lambda: iter(events), "A dog.")


def test_the_median_decides_whether_a_target_is_met():
    spread = Spread.of([0.5, 1.0, 3.0])
    assert spread.verdict(1.0) == "1 (0.5 to 3), target at most 1: met"
    assert spread.verdict(0.9).endswith("missed")
