"""How `map` adapts to servers that are full, and what it holds in memory."""

import asyncio
import subprocess
import sys
import threading
import time

import grpc
import pytest
from florence2.client.mapping import AdaptiveLimit
from florence2.errors import (
    DeadlineExceededError,
    UnavailableError,
)
from florence2.testing import MockTransport, task_response
from florence2.transports import Reply

from tests.client.echo import NUMBERS, Echo, collect_of
from tests.client.fake_server import WAIT_SECONDS

pytest_plugins = ["tests.client.fake_server", "tests.client.echo"]


def test_a_timeout_starts_when_its_request_is_sent(map_over):
    """All together take longer than the timeout of each."""
    outcomes = map_over(Echo(lambda _: 0.1), NUMBERS[:40], concurrency=2, timeout=1.5)
    assert [outcome.error for outcome in outcomes] == [None] * 40


class Full(MockTransport):
    """A handler that refuses requests while it is full."""

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
    errors = [outcome.error for outcome in map_over(full, NUMBERS[:3], timeout=1)]
    assert all(isinstance(error, UnavailableError | DeadlineExceededError) for error in errors)
    assert any("queue_requests: full" in str(error) for error in errors)


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
