"""What the package offers to the tests of its users."""

import asyncio
import doctest
import io
from itertools import accumulate

import florence2.testing
import numpy as np
import PIL.Image
import pytest
from florence2 import v1
from florence2.client import Finished, ItemFound, StepFinished, StepStarted, TextDelta, TruncatedAnswerError
from florence2.errors import (
    AccessDeniedError,
    InvalidArgumentError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)
from florence2.results import Text
from florence2.testing import MockTransport, task_response
from florence2.transports import AsyncStreamingTransport, AsyncTransport, StreamingTransport, Transport

from tests.client.fake_server import settled

pytest_plugins = ["tests.client.fake_server"]


@pytest.fixture
def use(client_type):
    """`use(handler, lambda client: client.detect(...))`: do something with a client over a mock."""

    def use(handler, action):
        async def act():
            client = client_type(transport=MockTransport(handler))
            try:
                return await settled(action(client))
            finally:
                await settled(client.close())

        return asyncio.run(act())

    return use


def test_the_example_of_the_module_runs():
    failed, attempted = doctest.testmod(florence2.testing)
    assert (failed, attempted > 0) == (0, True)


def test_a_mock_is_a_transport_for_both_clients():
    mock = MockTransport(lambda *_: task_response(""))
    assert isinstance(mock, Transport)
    assert isinstance(mock, AsyncTransport)
    assert isinstance(mock, StreamingTransport)
    assert isinstance(mock, AsyncStreamingTransport)


def test_the_handler_gets_what_the_client_sends_and_its_response_is_decoded(use):
    seen = []

    def respond(image, request):
        seen.append((image, request.WhichOneof("task"), request.generation.num_beams))
        return task_response("A dog.")

    assert use(respond, lambda client: client.caption(b"an image", num_beams=2)) == Text("A dog.")
    assert seen == [(b"an image", "caption", 2)]


def test_an_image_reaches_the_handler_encoded(use):
    def respond(image, _request):
        with PIL.Image.open(io.BytesIO(image)) as opened:
            return task_response("<loc_0><loc_0><loc_999><loc_999>", opened.size)

    found = use(respond, lambda client: client.propose_regions(np.zeros((50, 100, 3), np.uint8)))
    np.testing.assert_allclose(found.boxes, [[0.05, 0.025, 99.95, 49.975]])


def test_errors_of_the_handler_reach_the_caller(use):
    def refuse(_image, _request):
        raise UnavailableError("busy")

    with pytest.raises(UnavailableError, match="busy") as caught:
        use(refuse, lambda client: client.caption(b"an image", request_id="mine"))
    assert caught.value.request_id == "mine"


def test_a_response_can_be_truncated(use):
    with pytest.raises(TruncatedAnswerError):
        use(lambda *_: task_response("A d", is_truncated=True), lambda client: client.caption(b"an image"))


def test_a_mock_is_ready_and_healthy(use):
    assert use(None, lambda client: client.is_ready())
    (health,) = use(None, lambda client: client.health())
    assert health.is_alive
    assert health.is_ready


TWO_CARS = "car<loc_100><loc_200><loc_300><loc_400>van<loc_500><loc_200><loc_700><loc_400>"
RESPONSES = {  # the same messages each time, which must not change
    "caption": task_response("Two cars."),
    "object_detection": task_response(TWO_CARS),
    "phrase_grounding": task_response(TWO_CARS),
}


def respond_by_task(_image, request):
    """Knows three tasks, and fails for others."""
    task = request.WhichOneof("task")
    if task == "region_to_category":
        return task_response("vehicle" if request.region_to_category.region.x_min < 100 else "bus")
    if task not in RESPONSES:
        raise UnavailableError("busy")
    return RESPONSES[task]


async def collected(stream):
    """The events of a stream, from either client."""
    if hasattr(stream, "__anext__"):
        return [event async for event in stream]
    return list(stream)


def test_the_steps_of_a_cascade_reach_the_handler(use):
    result = use(respond_by_task, lambda client: client.analyze_regions(b"an image", "category"))
    assert result.detections.labels == ["car", "van"]
    assert [region.result for region in result.regions] == [Text("vehicle"), Text("bus")]
    grounded = use(respond_by_task, lambda client: client.ground_caption(b"an image"))
    assert (grounded.caption, grounded.detections.labels) == (Text("Two cars."), ["car", "van"])


def test_an_error_for_one_of_several_tasks_is_that_tasks_error(use):
    tasks = [v1.TaskRequest(caption={}), v1.TaskRequest(ocr={}), v1.TaskRequest(object_detection={})]
    caption, text, found = use(respond_by_task, lambda client: client.run_tasks(b"an image", tasks))
    assert caption.result == Text("Two cars.")
    assert found.result.labels == ["car", "van"]
    assert (type(text), str(text)) == (UnavailableError, "busy")


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgumentError.of_field("IMAGE", "a", "b"),
        RequestCancelledError("no"),
        AccessDeniedError("no"),
        ServerError("no"),
    ],
)
def test_a_plan_whose_first_step_fails_raises_an_error_of_that_kind(use, error):
    def fail(_image, _request):
        raise error

    with pytest.raises(type(error), match=str(error)) as caught:
        use(fail, lambda client: client.ground_caption(b"an image"))
    assert type(caught.value) is type(error)


def test_an_assertion_in_the_handler_reaches_the_test_that_makes_it(use):
    def check(_image, request):
        raise AssertionError(request.WhichOneof("task"))

    with pytest.raises(AssertionError, match="caption"):
        use(check, lambda client: client.ground_caption(b"an image"))
    with pytest.raises(AssertionError, match="ocr"):
        use(check, lambda client: collected(client.stream(b"an image", v1.TaskRequest(ocr={}))))


def streamed(use, handler, request):
    return use(handler, lambda client: collected(client.stream(b"an image", request)))


def test_the_text_of_a_stream_comes_in_pieces_and_its_items_one_by_one(use):
    *events, last = streamed(use, respond_by_task, v1.TaskRequest(object_detection={}))
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert (len(pieces) > 1, "".join(pieces)) == (True, TWO_CARS)
    assert [event.item.label for event in events if isinstance(event, ItemFound)] == ["car", "van"]
    assert isinstance(events[-1], ItemFound | TextDelta)
    assert isinstance(last, Finished)
    assert last.answer.result.labels == ["car", "van"]


def test_the_tokens_of_a_response_make_scores_in_a_stream(use):
    tokens = ["é", *(f"<loc_{bin_}>" for bin_ in (100, 200, 300, 400))] * 2
    response = task_response("".join(tokens))
    response.token_ends.extend(accumulate(len(token.encode()) for token in tokens))
    response.token_log_probabilities.extend(-number / 9 for number in range(len(tokens)))
    *events, last = streamed(use, lambda *_: response, v1.TaskRequest(object_detection={}))
    found = [event.item for event in events if isinstance(event, ItemFound)]
    assert [item.likelihood for item in found] == list(last.answer.result.likelihoods)
    assert len(set(last.answer.result.likelihoods)) == 2
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == response.text


def test_the_events_of_a_plan_are_those_of_its_steps(use):
    tasks = [v1.TaskRequest(caption={}), v1.TaskRequest(ocr={})]
    *events, last = streamed(use, respond_by_task, v1.TaskRequest(task_list={"tasks": tasks}))
    kinds = [(type(event), event.step) for event in events if not isinstance(event, TextDelta)]
    assert kinds == [(StepStarted, 0), (StepFinished, 0), (StepStarted, 1), (StepFinished, 1)]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Two cars."
    assert last.answer.steps[0].outcome.result == Text("Two cars.")
    assert isinstance(last.answer.steps[1].outcome, UnavailableError)


def test_an_error_of_the_handler_ends_a_stream(use):
    with pytest.raises(UnavailableError, match="busy"):
        streamed(use, respond_by_task, v1.TaskRequest(ocr={}))


def test_a_handler_may_return_the_same_response_each_time(use):
    streamed(use, respond_by_task, v1.TaskRequest(object_detection={}))
    use(respond_by_task, lambda client: client.analyze_regions(b"an image", "category"))
    assert RESPONSES["object_detection"] == task_response(TWO_CARS)


@pytest.mark.parametrize("text", ["", "a", "é" * 7])
def test_any_text_can_be_streamed(use, text):
    *events, last = streamed(use, lambda *_: task_response(text), v1.TaskRequest(ocr={}))
    assert "".join(event.text for event in events) == last.answer.text == text
