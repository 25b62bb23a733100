"""Servers that cannot be reached: not yet started, gone, or silent; alone and among others."""

import asyncio
import contextlib
import inspect
import logging
import socket
import threading
import time

import grpc
import pytest
from florence2 import Retry
from florence2.errors import (
    DeadlineExceededError,
    UnavailableError,
)

from tests.client.fake_server import QUICK, WAIT_SECONDS, FakeServer, serve, settled

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"the bytes of an image"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_client_that_is_started_before_its_server_waits_for_it(client_type, figure):
    """It would give up after a second if it counted attempts."""
    fake, port = FakeServer(), free_port()
    running, started = [], []

    def start_late() -> None:
        time.sleep(3)
        running.append(serve(fake, port=port))
        started.append(time.monotonic())

    async def detect() -> None:
        client = client_type(f"127.0.0.1:{port}", timeout=60)
        try:
            await settled(client.detect(IMAGE))
        finally:
            await settled(client.close())

    thread = threading.Thread(target=start_late)
    thread.start()
    try:
        asyncio.run(detect())
        figure("seconds from a server's start to the answer to a client that waited", time.monotonic() - started[0], 2)
    finally:
        thread.join()
        running[0].stop(grace=None).wait(WAIT_SECONDS)
    assert len(fake.received) == 1


def test_the_error_of_an_unreachable_server_says_how_long_it_was_tried_and_why(send_to):
    with pytest.raises(UnavailableError, match=r"^no server accepted .* in \d+ attempts within 0\.[67]") as error:
        send_to(f"127.0.0.1:{free_port()}", timeout=0.75, retry=Retry())
    assert "Connection refused" in str(error.value)
    assert error.value.request_id
    assert not error.value.is_refusal


def test_a_deadline_during_an_attempt_tells_the_reason_of_the_attempt_before(server, use):
    server.hold()
    server.fail_first(1)
    with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.5 s.*before failed with: the queue is full"):
        use(lambda client: client.detect(IMAGE, timeout=0.5), retry=QUICK)


def test_a_refusal_is_told_from_a_connection_that_cannot_be_made(server, use):
    server.fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")
    with pytest.raises(UnavailableError) as error:
        use(lambda client: client.detect(IMAGE), retry=None)
    assert error.value.is_refusal


@pytest.fixture
def black_hole():
    """The address of a socket that drops connections, as a machine that is off does."""
    with socket.socket() as listener, contextlib.ExitStack() as opened:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # more than its backlog holds
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield "{}:{}".format(*listener.getsockname())


def failures(caplog, url) -> int:
    """The number of attempts at a server that failed and counted."""
    return sum(f"{url} failed" in record.getMessage() for record in caplog.records)


def test_a_server_that_drops_packets_delays_the_first_request_only(server, send_to, black_hole, caplog, figure):
    caplog.set_level(logging.INFO, "florence2")
    connecting = [("grpc.min_reconnect_backoff_ms", 500)]
    started = time.monotonic()
    send_to([black_hole, server.url], times=200, channel_args=connecting, retry=Retry())
    figure("seconds of 200 requests to two servers, one of which drops packets for 0.5 s", time.monotonic() - started)
    assert len(server.received) == 200
    assert 1 <= failures(caplog, black_hole) <= 5


def test_a_server_that_is_gone_is_probed_and_used_again(two_servers, client_type, caplog):
    caplog.set_level(logging.INFO, "florence2")
    fake, other = two_servers
    port = free_port()
    dead = f"127.0.0.1:{port}"

    async def act() -> None:
        client = client_type([dead, other.url], timeout=WAIT_SECONDS, retry=Retry(max_backoff=0.5))
        try:
            for _ in range(50):
                await settled(client.detect(IMAGE))
            assert 1 <= failures(caplog, dead) <= 5
            running = serve(fake, port=port)
            deadline = time.monotonic() + WAIT_SECONDS
            while not fake.received and time.monotonic() < deadline:
                await settled(client.detect(IMAGE))
                await asyncio.sleep(0.01)
            assert fake.received
            assert f"{dead} responds again" in caplog.text
            running.stop(grace=None).wait(WAIT_SECONDS)
        finally:
            await settled(client.close())

    asyncio.run(act())


def test_one_of_three_servers_stopped_under_load_costs_a_handful_of_attempts(client_type, caplog, figure):
    caplog.set_level(logging.INFO, "florence2")
    fakes = [FakeServer() for _ in range(3)]
    running = [serve(fake) for fake in fakes]
    victim = fakes[1].url

    async def act() -> int:
        client = client_type([fake.url for fake in fakes], timeout=WAIT_SECONDS)
        answers = 0
        try:
            outcomes = client.map([IMAGE] * 600, "caption", concurrency=8)
            if inspect.isasyncgen(outcomes):
                async for outcome in outcomes:
                    answers += outcome.error is None
                    await asyncio.to_thread(stop_after(answers))
            else:
                for outcome in outcomes:
                    answers += outcome.error is None
                    stop_after(answers)()
        finally:
            await settled(client.close())
        return answers

    def stop_after(answers: int):
        return lambda: running[1].stop(grace=None).wait(WAIT_SECONDS) if answers == 100 else None

    try:
        assert asyncio.run(act()) == 600
    finally:
        for server in running:
            server.stop(grace=None).wait(WAIT_SECONDS)
    assert 1 <= failures(caplog, victim) <= 12
    figure("failed attempts at a stopped server, one of three, in 500 requests", failures(caplog, victim))
