"""Many images at once: `map` of both clients."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
import time

import florence2
import grpc
import numpy as np
import PIL.Image
import pytest
from florence2 import MapOutcome, v1
from florence2.client import AsyncClient, Client
from florence2.client.mapping import AdaptiveLimit
from florence2.errors import (
    DeadlineExceededError,
    Florence2Error,
    InvalidArgumentError,
    ServerError,
    UnavailableError,
)
from florence2.results import Text
from florence2.testing import MockTransport, task_response
from florence2.transports import Reply

from tests.client.fake_server import LENGTH, WAIT_SECONDS, settled

pytest_plugins = ["tests.client.fake_server"]

NUMBERS = [b"%d" % number for number in range(100)]


async def collect(outcomes):
    """All outcomes of either client."""
    return list(outcomes) if hasattr(outcomes, "__next__") else [outcome async for outcome in outcomes]


class Echo(MockTransport):
    """Both kinds of transport: the answer is the image's text, after as many seconds as a function says."""

    def __init__(self, seconds=lambda _: 0.0):
        self._seconds = seconds
        self._lock = threading.Lock()
        self.sent, self.ended = [], []
        self.active = self.most_active = 0

    @contextlib.contextmanager
    def _sending(self, image, request, context):
        with self._lock:
            self.sent.append((image, v1.TaskRequest.FromString(request.SerializeToString()), context))
            self.active += 1
            self.most_active = max(self.active, self.most_active)
        try:
            yield
        finally:
            with self._lock:
                self.active -= 1
                self.ended.append(image)

    def infer(self, image, request, context):
        with self._sending(image, request, context):
            time.sleep(self._seconds(image))
            return Reply(task_response(image.decode()))

    async def infer_async(self, image, request, context):
        with self._sending(image, request, context):
            await asyncio.sleep(self._seconds(image))
            return Reply(task_response(image.decode()))


@pytest.fixture
def map_over(client_type):
    """`map_over(transport, images, task, **arguments)`: all outcomes of a client over a transport."""

    def map_over(transport, images, task="caption", **arguments):
        async def act():
            client = client_type(transport=transport)
            try:
                return await collect(client.map(images, task, **arguments))
            finally:
                await settled(client.close())

        return asyncio.run(act())

    return map_over


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
    echo = Echo(lambda _: 0.002)
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


async def collect_of(client, images, **arguments):
    return await collect(client.map(images, "caption", **arguments))


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
    """As with a camera: the first outcomes are there before the last image is."""
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


class OwnError(Exception):
    pass


def failing_images():
    yield from NUMBERS[:3]
    raise OwnError("the list is gone")


async def failing_asynchronous_images():
    for image in NUMBERS[:3]:
        yield image
    raise OwnError("the list is gone")


@pytest.mark.parametrize(
    ("client_type", "images"),
    [(Client, failing_images), (AsyncClient, failing_images), (AsyncClient, failing_asynchronous_images)],
    ids=["threads", "tasks", "asynchronous"],
)
def test_an_error_of_the_callers_images_is_raised_and_cancels_the_rest(server, use, images):
    server.hold()
    with pytest.raises(OwnError, match="the list is gone"):
        use(lambda client: collect(client.map(images(), "caption")), timeout=None)
    assert server.cancelled.wait(WAIT_SECONDS)
    nothing_is_left()


def test_an_error_of_the_callers_function_is_raised(map_over):
    def request(image):
        raise OwnError(f"what is {image!r}?")

    with pytest.raises(OwnError, match="what is"):
        map_over(Echo(), NUMBERS, request)
    nothing_is_left()


def test_an_error_of_this_package_in_the_callers_function_is_that_of_the_image(map_over):
    def request(image):
        if image == b"1":
            raise FileNotFoundError("1.txt")
        return v1.TaskRequest(caption={})

    outcomes = map_over(Echo(), NUMBERS[:3], request)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), FileNotFoundError, type(None)]


def test_an_invalid_request_for_one_image_is_that_images_error(map_over):
    def request(image):
        return v1.TaskRequest(phrase_grounding={"caption": "" if image == b"1" else "a dog"})

    outcomes = map_over(MockTransport(lambda *_: task_response("")), NUMBERS[:3], request)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), InvalidArgumentError, type(None)]


def nothing_is_left():
    assert [thread.name for thread in threading.enumerate() if "florence2-map" in thread.name] == []


async def received(server, count):
    """Wait until a server has received that number of requests."""
    for _ in range(int(WAIT_SECONDS * 100)):
        if len(server.received) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"only {len(server.received)} requests arrived")


def test_leaving_the_loop_cancels_what_is_under_way_and_leaves_no_threads(server):
    """The requests are cancelled on the server, too."""
    server.hold_after(1)
    with Client(server.url, timeout=None) as client:
        for _ in client.map(NUMBERS, "caption", concurrency=2, ordered=False):
            asyncio.run(received(server, 3))
            break
        nothing_is_left()
        assert server.cancelled.wait(WAIT_SECONDS)


def test_leaving_the_loop_cancels_what_is_under_way_and_leaves_no_tasks(server):
    server.hold_after(1)

    async def act():
        async with AsyncClient(server.url, timeout=None) as client:
            async for _ in client.map(NUMBERS, "caption", concurrency=2, ordered=False):
                await received(server, 3)
                break
            for _ in range(100):
                await asyncio.sleep(0.01)
                if len(asyncio.all_tasks()) == 1:
                    break
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(act())
    assert server.cancelled.wait(WAIT_SECONDS)


def test_cancelling_the_task_that_iterates_cancels_the_requests(server):
    server.hold()

    async def act():
        async with AsyncClient(server.url, timeout=None) as client:
            iterating = asyncio.create_task(collect(client.map(NUMBERS, "caption")))
            assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
            iterating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await iterating
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(act())
    assert server.cancelled.wait(WAIT_SECONDS)


INTERRUPTED = """
import os, signal, sys, threading
from florence2 import Client
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with Client(sys.argv[1], timeout=None) as client:
        list(client.map([b"image"] * 100, "caption"))
except KeyboardInterrupt:
    print("interrupted", [thread.name for thread in threading.enumerate() if "florence2-map" in thread.name])
"""


def test_ctrl_c_ends_the_loop(server):
    server.hold()
    command = [sys.executable, "-c", INTERRUPTED, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "interrupted []\n"


def test_a_transport_that_cannot_cancel_is_waited_for():
    echo = Echo(lambda _: 0.2)
    with Client(transport=echo) as client, contextlib.closing(client.map(NUMBERS, "caption")) as outcomes:
        next(outcomes)
    assert echo.active == 0
    nothing_is_left()


def test_a_closed_client_ends_the_loop(client_type):
    async def act():
        client = client_type(transport=Echo())
        outcomes = client.map(NUMBERS, "caption", concurrency=1)
        await settled(client.close())
        await collect(outcomes)

    with pytest.raises(RuntimeError, match="the client is closed"):
        asyncio.run(act())


def test_a_timeout_starts_when_its_request_is_sent(map_over):
    """All together take longer than the timeout of each."""
    outcomes = map_over(Echo(lambda _: 0.02), NUMBERS[:40], concurrency=2, timeout=0.2)
    assert [outcome.error for outcome in outcomes] == [None] * 40


class Full(MockTransport):
    """A handler that refuses requests while as many as it holds are there."""

    def __init__(self, slots, seconds=0.005):
        self._free = threading.Semaphore(slots)
        self._seconds = seconds
        self.refusals = 0

    def infer(self, image, request, context):  # noqa: ARG002
        if not self._free.acquire(blocking=False):
            self.refusals += 1
            raise UnavailableError("queue_requests: full")
        time.sleep(self._seconds)
        self._free.release()
        return Reply(task_response(image.decode()))

    async def infer_async(self, image, request, context):
        return await asyncio.to_thread(self.infer, image, request, context)


def test_a_full_server_loses_nothing_and_is_sent_less(map_over, figure):
    full = Full(slots=3)
    outcomes = map_over(full, [b"%d" % number for number in range(400)], concurrency=32)
    assert [outcome.error for outcome in outcomes] == [None] * 400
    assert full.refusals < 400
    figure("refusals of 400 requests by a server with 3 places, 32 requests at once", full.refusals)


def test_refusals_until_the_deadline_are_the_images_error(map_over):
    full = Full(slots=0)
    outcomes = map_over(full, NUMBERS[:3], timeout=0.3)
    assert all(isinstance(outcome.error, (UnavailableError, DeadlineExceededError)) for outcome in outcomes)
    assert all("queue_requests: full" in str(outcome.error) for outcome in outcomes)


def test_the_servers_refusals_lower_the_number_of_requests(server, use):
    server.fail_first(5)
    outcomes = use(lambda client: collect_of(client, NUMBERS[:20], concurrency=8), timeout=WAIT_SECONDS)
    assert [outcome.error for outcome in outcomes] == [None] * 20
    assert len(server.received) == 25


def test_without_retries_a_refusal_is_the_images_error(server, use):
    server.fail(grpc.StatusCode.UNAVAILABLE, "queue_requests: full")
    outcomes = use(lambda client: collect_of(client, NUMBERS[:3]), retry=None)
    assert [type(outcome.error) for outcome in outcomes] == [UnavailableError] * 3
    assert len(server.received) == 3


def test_the_limit_doubles_at_first_and_is_halved_once_by_an_overload():
    limit = AdaptiveLimit(64)
    assert limit.value == 4
    for _ in range(28):
        limit.on_answer()
    assert limit.value == 32
    began = time.monotonic()
    for _ in range(10):
        limit.on_refusal(began)
    assert limit.value == 16
    for _ in range(17):
        limit.on_answer()
    assert limit.value == 17
    for _ in range(20):
        limit.on_refusal(time.monotonic())
    assert limit.value == 1


def test_an_outcome_shows_its_answer_or_its_error_and_no_image():
    outcome = MapOutcome(3, b"\0" * 1000, error=Florence2Error("why"))
    assert repr(outcome) == "MapOutcome(index=3, answer=None, error=Florence2Error('why'))"


MEMORY = """
import sys
from pathlib import Path
from florence2 import Client
from florence2.testing import MockTransport, task_response

def resident():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))

response = task_response("A dog.")
warm, count = map(int, sys.argv[1:])
with Client(transport=MockTransport(lambda *_: response)) as client:
    outcomes = client.map((b"%d" % number for number in range(count)), "caption")
    for outcome in outcomes:
        if outcome.index == warm:
            before = resident()
print(resident() / before)
"""


def memory_growth(warm: int, count: int) -> float:
    """The peak memory of a process that maps `count` images, relative to that after `warm` of them."""
    command = [sys.executable, "-c", MEMORY, str(warm), str(count)]
    return float(subprocess.run(command, capture_output=True, check=True, timeout=3600, text=True).stdout)


def test_memory_does_not_grow_with_the_number_of_images(figure):
    growth = memory_growth(1_000, 10_000)
    figure("peak memory after 10,000 mapped images, of that after 1,000", growth, at_most=1.1)
    assert growth < 1.2


@pytest.mark.slow
def test_memory_of_a_million_images_is_that_of_ten_thousand(figure):
    growth = memory_growth(10_000, 1_000_000)
    figure("peak memory after 1,000,000 mapped images, of that after 10,000", growth, at_most=1.1)
    assert growth < 1.1
