"""Many images at once: `map` of both clients."""

import asyncio
import contextlib
import itertools
import time

import florence2
import numpy as np
import PIL.Image
import pytest
from florence2 import MapOutcome, v1
from florence2.client import AsyncClient, Client
from florence2.errors import (
    Florence2Error,
    InvalidArgumentError,
    ServerError,
)
from florence2.results import Text
from florence2.testing import MockTransport, task_response

from tests.client.echo import NUMBERS, Echo, collect, collect_of
from tests.client.fake_server import LENGTH

pytest_plugins = ["tests.client.fake_server", "tests.client.echo"]


def later_ones_first(image):
    return 0.02 * (int(image) % 5 == 0)


def test_outcomes_come_in_the_order_of_the_images(map_over):
    outcomes = map_over(Echo(later_ones_first), NUMBERS)
    assert [outcome.index for outcome in outcomes] == list(range(100))
    assert [outcome.image for outcome in outcomes] == NUMBERS
    assert [outcome.result for outcome in outcomes] == [Text(image.decode()) for image in NUMBERS]


def test_outcomes_may_come_as_they_arrive(map_over):
    outcomes = map_over(Echo(later_ones_first), NUMBERS, ordered=False)
    indices = [outcome.index for outcome in outcomes]
    assert indices != sorted(indices)
    assert sorted(indices) == list(range(100))
    assert all(outcome.result == Text(str(outcome.index)) for outcome in outcomes)


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_no_more_requests_are_under_way_than_allowed(map_over, concurrency):
    echo = Echo(until_active=concurrency)  # the limit has grown to its maximum long before the first is held
    map_over(echo, NUMBERS, concurrency=concurrency)
    assert echo.most_active == concurrency


def test_no_images_are_no_outcomes(map_over):
    assert map_over(Echo(), []) == []


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("detect", v1.TaskRequest(object_detection={})),
        ("<OD>", v1.TaskRequest(object_detection={})),
        ("caption", v1.TaskRequest(caption={})),
        ("<MORE_DETAILED_CAPTION>", v1.TaskRequest(more_detailed_caption={})),
        (v1.TaskRequest(phrase_grounding={"caption": "a dog"}), v1.TaskRequest(phrase_grounding={"caption": "a dog"})),
        (lambda image: v1.TaskRequest(prompt=image.decode()), v1.TaskRequest(prompt="7")),
    ],
    ids=["method", "token", "first of several", "another token", "request", "function"],
)
def test_a_task_is_a_request_a_name_or_a_function(map_over, task, expected):
    echo = Echo()
    map_over(echo, [b"7"], task, num_beams=2, adapter="tags", priority=1, timeout=9, request_id="mine")
    ((_, request, context),) = echo.sent
    common = v1.TaskRequest(generation={"num_beams": 2}, adapter="tags", raw=True)
    common.MergeFrom(expected)
    assert request == common
    assert (context.priority, context.timeout, context.request_id) == (1, 9, "mine-0")


def test_the_callers_request_is_not_changed(map_over):
    request = v1.TaskRequest(caption={})
    map_over(Echo(), NUMBERS[:3], request, num_beams=2)
    assert request == v1.TaskRequest(caption={})


@pytest.mark.parametrize("name", ["ground_caption", "analyze_regions"])
def test_a_cascade_has_a_name_too(client_type, name):
    transport = MockTransport(lambda image, request: task_response("a dog<loc_1><loc_2><loc_3><loc_4>"))  # noqa: ARG005

    async def act():
        (outcome,) = await collect(client_type(transport=transport).map([b"image"], name))
        return outcome

    assert len(asyncio.run(act()).answer.steps) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([b""], "ground"), InvalidArgumentError, r"^task: got 'ground', expected .*caption.*TaskRequest"),
        (([b""], ""), InvalidArgumentError, "^task: got ''"),
        (([b""], None), TypeError, "^task: got None of type NoneType"),
        (([b""], v1.TaskRequest()), InvalidArgumentError, "task"),
        (("a path", "caption"), TypeError, "^images: got 'a path' of type str, expected an iterable of images"),
        ((3, "caption"), TypeError, "^images: got 3"),
    ],
    ids=str,
)
def test_wrong_arguments_are_errors_of_the_call(client_type, arguments, error, message):
    with pytest.raises(error, match=message):
        client_type(transport=Echo()).map(*arguments)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"timeout": 0}, InvalidArgumentError, "^timeout: got 0"),
        ({"timeout": "5"}, TypeError, "^timeout: got '5'"),
        ({"priority": 4}, InvalidArgumentError, "^priority: got 4"),
        ({"request_id": 7}, TypeError, "^request_id: got 7"),
        ({"concurrency": 0}, InvalidArgumentError, "^concurrency: got 0, expected at least 1"),
        ({"concurrency": "4"}, TypeError, "^concurrency: got '4'"),
        ({"beams": 2}, TypeError, "unexpected keyword argument 'beams'"),
        ({"num_beams": "2"}, TypeError, "^num_beams"),
        ({"num_beams": 99}, InvalidArgumentError, r"^generation\.num_beams: got 99"),
    ],
    ids=str,
)
def test_wrong_keywords_are_errors_of_the_call(client_type, keywords, error, message):
    with pytest.raises(error, match=message):
        client_type(transport=Echo()).map([b"image"], "caption", **keywords)


class Broken:
    def read(self):
        raise ZeroDivisionError("the reader is broken")


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ("no/such/file.png", FileNotFoundError, "no/such/file"),
        ("https://example.com/a.png", InvalidArgumentError, "URLs are not fetched"),
        (None, InvalidArgumentError, "image: got NoneType, expected a path"),
        (np.zeros((0, 3), np.uint8), InvalidArgumentError, "not empty"),
        (PIL.Image.new("F", (3, 3)), InvalidArgumentError, "image"),
        (Broken(), InvalidArgumentError, "image: the reader is broken"),
    ],
    ids=["missing", "url", "none", "empty", "mode", "broken"],
)
def test_whatever_is_wrong_with_one_image_is_its_own_error(map_over, image, error, message):
    first, bad, last = map_over(Echo(), [b"1", image, b"3"])
    assert [first.result, last.result] == [Text("1"), Text("3")]
    assert bad.image is image
    assert bad.answer is None
    assert type(bad.error) is error
    with pytest.raises(error, match=message):
        bad.result  # noqa: B018  # the access is what raises


def test_an_error_of_the_server_is_that_of_its_image(map_over):
    def handle(image, request):  # noqa: ARG001
        if int(image) % 10 == 3:
            raise ServerError("INTERNAL: it is so")
        return task_response("A dog.")

    outcomes = map_over(MockTransport(handle), NUMBERS)
    assert [outcome.index for outcome in outcomes if outcome.error] == list(range(3, 100, 10))
    assert all(outcome.error.request_id for outcome in outcomes if outcome.error)


def test_a_truncated_answer_is_an_answer_whose_result_says_so(server, use):
    server.answer("</s><s>A do", LENGTH)
    (outcome,) = use(lambda client: collect_of(client, [b"image"]))
    assert outcome.error is None
    assert outcome.answer.result == Text("A do")
    with pytest.raises(florence2.TruncatedAnswerError):
        outcome.result  # noqa: B018


def test_images_are_taken_as_they_are_needed(client_type):
    taken = itertools.count()
    images = (b"%d" % next(taken) for _ in range(1_000))

    async def take_ten():
        outcomes = client_type(transport=Echo()).map(images, "caption", concurrency=4)
        if hasattr(outcomes, "__next__"):
            with contextlib.closing(outcomes):
                return [next(outcomes) for _ in range(10)]
        async with contextlib.aclosing(outcomes):
            return [await anext(outcomes) for _ in range(10)]

    assert len(asyncio.run(take_ten())) == 10
    assert next(taken) <= 10 + 3 * 4


def test_a_slow_answer_holds_back_three_times_as_many_ordered_ones_as_are_under_way(map_over):
    echo = Echo(lambda image: 0.3 * (image == b"0"))
    before_the_slow_answer = []

    def images():
        for image in NUMBERS:
            if b"0" not in echo.ended:
                before_the_slow_answer.append(image)
            yield image

    outcomes = map_over(echo, images(), concurrency=4)
    assert [outcome.index for outcome in outcomes] == list(range(100))
    assert len(before_the_slow_answer) == 3 * 4


def test_an_outcome_does_not_wait_for_the_next_images(client_type):
    """As with a camera: the first outcomes arrive before the last image exists."""
    seen = []

    async def act():
        client = client_type(transport=Echo())
        if client_type is Client:
            return [(outcome.index, len(seen)) for outcome in client.map(slow_images(seen), "caption")]
        return [(outcome.index, len(seen)) async for outcome in client.map(slow_asynchronous_images(seen), "caption")]

    assert all(taken <= index + 3 for index, taken in asyncio.run(act()))


def slow_images(seen):
    for number in range(10):
        time.sleep(0.05)
        seen.append(number)
        yield b"%d" % number


async def slow_asynchronous_images(seen):
    for number in range(10):
        await asyncio.sleep(0.05)
        seen.append(number)
        yield b"%d" % number


def test_images_may_be_asynchronous():
    async def images():
        for image in NUMBERS:
            await asyncio.sleep(0)
            yield image

    async def act():
        return await collect(AsyncClient(transport=Echo()).map(images(), "caption"))

    assert [outcome.image for outcome in asyncio.run(act())] == NUMBERS


def test_an_outcome_shows_its_answer_or_its_error_and_no_image():
    outcome = MapOutcome(3, b"\0" * 1000, error=Florence2Error("why"))
    assert repr(outcome) == "MapOutcome(index=3, answer=None, error=Florence2Error('why'))"
