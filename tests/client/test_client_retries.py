"""Retries, failover and round robin."""

import asyncio
import inspect
import time

import grpc
import pytest
from florence2 import Retry
from florence2.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)

from tests.client.fake_server import QUICK, WAIT_SECONDS, settled

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"the bytes of an image"
NOBODY = "127.0.0.1:1"


def test_a_request_that_a_stopping_server_cancels_is_retried(server, use):
    server.fail_first(3, grpc.StatusCode.CANCELLED)
    use(lambda client: client.detect(IMAGE), retry=QUICK)
    assert len(server.received) == 4


def test_an_unavailable_request_is_retried(server, use):
    server.fail_first(3)
    use(lambda client: client.detect(IMAGE), retry=QUICK)
    assert len(server.received) == 4


def test_a_request_is_not_sent_more_often_than_allowed(server, use):
    server.fail_first(4)
    with pytest.raises(UnavailableError, match="the queue is full"):
        use(lambda client: client.detect(IMAGE), retry=QUICK)
    assert len(server.received) == 4


def test_without_retries_nothing_is_sent_twice(server, use):
    server.fail_first(1)
    with pytest.raises(UnavailableError):
        use(lambda client: client.detect(IMAGE), retry=None)
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED], ids=str)
def test_other_errors_are_not_retried(server, use, status):
    server.fail_first(1, status)
    with pytest.raises(ServerError):
        use(lambda client: client.detect(IMAGE), retry=QUICK)
    assert len(server.received) == 1


def test_no_attempt_begins_after_the_timeout(server, use):
    server.fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")
    started = time.monotonic()
    with pytest.raises((UnavailableError, DeadlineExceededError)):
        use(lambda client: client.detect(IMAGE, timeout=0.4), retry=Retry(attempts=1000, initial_backoff=0.05))
    assert time.monotonic() - started < 0.4 + 1
    assert len(server.received) > 1


def test_every_attempt_has_the_rest_of_the_timeout(server, use):
    server.fail_first(3)
    use(lambda client: client.detect(IMAGE, timeout=5), retry=Retry(initial_backoff=0.1, max_backoff=0.1))
    for_the_call = [received.seconds_left for received in server.received]
    in_the_queue = [received.message.parameters["timeout"].int64_param / 1e6 for received in server.received]
    in_the_request = [received.request.timeout_seconds for received in server.received]
    assert in_the_queue == sorted(in_the_queue, reverse=True)
    assert in_the_request == pytest.approx(in_the_queue, abs=1e-5)
    assert in_the_request[-1] < in_the_request[0]
    assert for_the_call == pytest.approx(in_the_queue, rel=0.1)  # gRPC sends few digits of a deadline, rounded up


def test_requests_take_turns_among_servers(two_servers, send_to):
    send_to([fake.url for fake in two_servers], times=6)
    assert [len(fake.received) for fake in two_servers] == [3, 3]


def test_a_server_that_cannot_be_reached_is_skipped(server, send_to):
    send_to([NOBODY, server.url], times=4, retry=None)
    assert len(server.received) == 4


def test_a_full_server_is_skipped_without_waiting(two_servers, send_to):
    two_servers[0].fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")
    started = time.monotonic()
    send_to([fake.url for fake in two_servers], times=4, retry=Retry(initial_backoff=60, max_backoff=60))
    assert time.monotonic() - started < WAIT_SECONDS
    assert len(two_servers[1].received) == 4


def test_servers_are_ready_if_one_of_them_is(server, client_type):
    async def is_ready(urls):
        client = client_type(urls)
        try:
            return await settled(client.is_ready())
        finally:
            await settled(client.close())

    assert asyncio.run(is_ready([NOBODY, server.url]))
    assert not asyncio.run(is_ready([NOBODY, NOBODY]))


def test_closing_a_client_ends_the_wait_for_the_next_attempt(server, client_type):
    server.fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")
    client = client_type(server.url, retry=Retry(attempts=3, initial_backoff=1000, max_backoff=1000), timeout=None)

    async def detect_and_close() -> None:
        if inspect.iscoroutinefunction(client.detect):
            pending = asyncio.ensure_future(client.detect(IMAGE))
        else:
            pending = asyncio.ensure_future(asyncio.to_thread(client.detect, IMAGE))
        assert await asyncio.to_thread(server.arrived.wait, WAIT_SECONDS)
        await asyncio.sleep(0.1)
        await settled(client.close())
        with pytest.raises(RequestCancelledError, match="closed"):
            await asyncio.wait_for(pending, WAIT_SECONDS)

    asyncio.run(detect_and_close())


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"initial_backoff": 0}, {"max_backoff": -1}])
def test_retry_rejects_invalid_settings(settings):
    with pytest.raises(InvalidArgumentError, match=rf"^retry\.{next(iter(settings))}: got"):
        Retry(**settings)


def test_a_client_needs_a_url(client_type):
    with pytest.raises(InvalidArgumentError, match=r"^url: got"):
        client_type([])


def test_retry_accepts_no_limit_and_checks_a_given_one():
    assert Retry().attempts is None
    with pytest.raises(TypeError, match=r"retry\.attempts"):
        Retry(attempts=1.5)
