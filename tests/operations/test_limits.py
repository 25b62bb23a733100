"""What each limit stops, what that costs, and that other callers notice nothing (SECURITY.md)."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import PIL.Image
import pytest
from florence2 import Client
from florence2.v1 import TaskRequest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conftest import EXAMPLE_SCENE
from tests.server.faults.callers import Ending, send_at_once
from tests.server.observation import engine_of, metric_sum, requests_counted, requests_counted_at_rest, seconds_until
from tests.server.wire_requests import add_tensor, element, infer_request

SCENE = EXAMPLE_SCENE.read_bytes()
CAPTION = TaskRequest(caption={})
# Of these limits alone the defaults take long to reach. All others are the defaults.
SETTINGS = {
    "FLORENCE2_QUEUE_REQUESTS": "16",
    "FLORENCE2_QUEUE_BYTES": str(96 << 20),
    "FLORENCE2_MAX_TASKS": "200",
}


@dataclass(frozen=True)
class Excess:
    """A request that exceeds a limit.

    Attributes:
        words: a part of the message that refuses it.
        elements: number of batch elements.
    """

    limit: str
    image: bytes
    request: TaskRequest | bytes
    words: str
    elements: int = 1

    def message(self) -> service_pb2.ModelInferRequest:
        """The request as it travels."""
        request = self.request if isinstance(self.request, bytes) else self.request.SerializeToString()
        message = service_pb2.ModelInferRequest(model_name="florence2")
        for name, data in (("IMAGE", self.image), ("REQUEST", request)):
            add_tensor(message, name, [self.elements, 1], "BYTES", element(data) * self.elements)
        return message


def flat_png(side: int) -> bytes:
    """A small file of a large image."""
    file = io.BytesIO()
    PIL.Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def animation(frames: int) -> bytes:
    file = io.BytesIO()
    first, *others = (PIL.Image.new("L", (2, 2), number % 256) for number in range(frames))
    first.save(file, "GIF", save_all=True, append_images=others)
    return file.getvalue()


def uncompressed(side: int) -> bytes:
    """A valid image of three bytes per pixel."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(file, "TIFF")
    return file.getvalue()


def tasks(count: int) -> TaskRequest:
    return TaskRequest(task_list={"tasks": [CAPTION] * count})


EXCESSES = [
    Excess("MAX_IMAGE_BYTES", bytes((40 << 20) + 1), CAPTION, "expected at most 41943040 bytes"),
    Excess(
        "MAX_IMAGE_PIXELS", flat_png(12_000), CAPTION, "got '12000 x 12000 pixels', expected at most 50000000 pixels"
    ),
    Excess("MAX_IMAGE_FRAMES", animation(1001), CAPTION, "expected at most 1000 frames"),
    Excess("MAX_REQUEST_BYTES", SCENE, TaskRequest(free_prompt={"text": "a" * 65_536}), "expected at most 65536 bytes"),
    Excess("MAX_REQUEST_BYTES, nested JSON", SCENE, b'{"a":' * 13_000, "maximum recursion depth exceeded"),
    Excess(
        "POSITIONS, prompt", SCENE, TaskRequest(free_prompt={"text": "word " * 2000}), "expected at most 959 tokens"
    ),
    Excess("MAX_NEW_TOKENS", SCENE, TaskRequest(caption={}, generation={"max_new_tokens": 9999}), "expected 1 to 1024"),
    Excess("MAX_BEAMS", SCENE, TaskRequest(caption={}, generation={"num_beams": 9}), "got 9, expected 1 to 8"),
    Excess("MAX_TASKS", SCENE, tasks(201), "got '201 requests', expected at most 200 (max_tasks)"),
    Excess("MAX_STEPS", SCENE, tasks(129), "expected at most 128 (max_steps)"),
    Excess("batch elements", SCENE, CAPTION, "batch-size must be <= 16", elements=17),
]


@pytest.fixture(scope="module")
def server(start_server):
    return start_server(**SETTINGS)


class OtherCaller:
    """A caller who sends one request after another meanwhile.

    Attributes:
        answers: the answers, in order.
        seconds: what each took.
    """

    def __init__(self, url: str) -> None:
        self.answers: list[str] = []
        self.seconds: list[float] = []
        self._url = url
        self._stop = threading.Event()

    def run(self) -> None:
        """Send requests until told to stop. An error ends this early, and leaves too few answers."""
        with Client(self._url, timeout=30) as client:
            while not self._stop.is_set():
                begin = time.monotonic()
                self.answers.append(client.caption(SCENE).text)
                self.seconds.append(time.monotonic() - begin)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call until the end of the block, and at least twice."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            while thread.is_alive() and len(self.answers) < 2:
                time.sleep(0.02)
            self._stop.set()
            thread.join()


@pytest.fixture
def other_caller(server, figure, request) -> Iterator[None]:
    """Checks that another caller is answered correctly during the test, by the same engine."""
    engine = engine_of(server)
    caller = OtherCaller(server.grpc_url)
    with caller.calling():
        yield
    assert len(caller.answers) >= 2
    assert set(caller.answers) == {"A red circle, a green triangle and a blue square."}
    assert engine_of(server) == engine
    slowest = max(caller.seconds) * 1000
    name = request.node.callspec.id
    figure(f"{name}: milliseconds to the slowest of {len(caller.answers)} answers to another caller", slowest)


def refusal(server, message: service_pb2.ModelInferRequest) -> tuple[grpc.RpcError, float]:
    """Send a request on a connection that is already open. Returns the error, and after how many milliseconds."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        begin = time.monotonic()
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
        except grpc.RpcError as error:
            return error, (time.monotonic() - begin) * 1000
    raise AssertionError("the request was answered")


@pytest.mark.parametrize("excess", EXCESSES, ids=lambda each: each.limit)
@pytest.mark.usefixtures("other_caller")
def test_a_request_over_a_limit_is_refused_at_once(server, figure, excess):
    error, milliseconds = refusal(server, excess.message())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert excess.words in error.details()
    figure(f"{excess.limit}: milliseconds to the refusal", milliseconds)


OVER_THE_QUEUE = pytest.mark.parametrize(
    ("limit", "image", "count"),
    [("queue_requests", SCENE, 80), ("queue_bytes", uncompressed(1700), 8)],
    ids=["QUEUE_REQUESTS", "QUEUE_BYTES"],
)
FORTY_TOKENS = TaskRequest(ocr={}, generation={"num_beams": 1, "min_new_tokens": 40, "max_new_tokens": 40})


@OVER_THE_QUEUE
@pytest.mark.usefixtures("other_caller")
def test_requests_over_a_limit_of_the_queue_are_refused_at_once(server, figure, limit, image, count):
    endings = send_at_once(server.grpc_url, [infer_request(image, FORTY_TOKENS.SerializeToString())] * count)
    refused = [each for each in endings if each.status is grpc.StatusCode.UNAVAILABLE]
    assert refused
    assert all(is_answer(each) for each in endings if each not in refused)
    assert all(f"{limit}: got " in each.details for each in refused)
    slowest = max(each.seconds for each in refused) * 1000
    figure(f"{limit}: milliseconds to the slowest of {len(refused)} refusals of {count}", slowest)


@OVER_THE_QUEUE
def test_the_refusals_that_callers_see_are_those_that_are_counted(server, figure, limit, image, count):
    """And all of them are failures of the objectives. An invalid request that meets no full queue is neither."""
    reason = limit.removeprefix("queue_")
    invalid = infer_request(SCENE, TaskRequest(caption={}, generation={"num_beams": 9}).SerializeToString())
    messages = [infer_request(image, FORTY_TOKENS.SerializeToString())] * count
    requests = requests_counted_at_rest(server)
    before = counters(server, reason)
    error, _ = refusal(server, invalid)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    statuses = [each.status for each in send_at_once(server.grpc_url, messages)]
    seconds_until(lambda: requests_counted(server) == requests + 1 + count, limit=10)
    refusals, others, failed = (now - then for now, then in zip(counters(server, reason), before, strict=True))
    seen = statuses.count(grpc.StatusCode.UNAVAILABLE)
    name = f"O1: refusals counted, of {seen} that callers of {len(messages)} requests saw ({limit})"
    figure(name, int(refusals))
    assert 0 < seen < count
    assert (refusals, others, failed) == (seen, 0, seen)


def counters(server, reason: str) -> tuple[float, float, float]:
    """The refusals for a reason, those for others, and the requests that failed by the objectives."""
    refusals = metric_sum(server, "florence2_refusals_total", reason=reason)
    others = metric_sum(server, "florence2_refusals_total") - refusals
    return refusals, others, metric_sum(server, "florence2_objective_requests_total", verdict="failed")


def is_answer(ending: Ending) -> bool:
    return ending.status is grpc.StatusCode.OK
