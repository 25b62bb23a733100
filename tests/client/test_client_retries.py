"""Retries, failover and round robin."""

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
    InvalidArgumentError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)
from florence2.transports import RequestContext
from florence2.transports.attempts import Attempts

from tests.client.fake_server import WAIT_SECONDS, FakeServer, serve, settled

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"the bytes of an image"
QUICK = Retry(attempts=4, initial_backoff=0.01, max_backoff=0.02)
NOBODY = "127.0.0.1:1"


@pytest.fixture
def two_servers():
    fakes = [FakeServer(), FakeServer()]
    running = [serve(fake) for fake in fakes]
    yield fakes
    for fake, server in zip(fakes, running, strict=True):
        fake.released.set()
        server.stop(grace=None).wait(WAIT_SECONDS)


@pytest.fixture
def send_to(client_type):
    """`send_to(urls, times, **settings)`: send requests with one client, one after another."""

    def send_to(urls, times=1, **settings):
        async def act():
            client = client_type(urls, **{"timeout": WAIT_SECONDS, "retry": QUICK, **settings})
            try:
                for _ in range(times):
                    await settled(client.detect(IMAGE))
            finally:
                await settled(client.close())

        asyncio.run(act())

    return send_to


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
    with pytest.raises(TypeError, match="retry.attempts"):
        Retry(attempts=1.5)


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
    """How many attempts at a server failed, of those that counted."""
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


def attempts(endpoints: int, retry: Retry | None = None) -> Attempts:
    return Attempts([str(number) for number in range(endpoints)], retry)


def test_backoff_is_bounded_and_doubles():
    retry = Retry(initial_backoff=1, max_backoff=8)
    assert [attempts(1, retry).bound(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 8, 8]


def test_waits_are_spread_between_zero_and_the_bound():
    slept = []

    def refuse(_: int) -> None:
        raise UnavailableError("full")

    for _ in range(300):
        with pytest.raises(UnavailableError):
            attempts(1, Retry(attempts=4, initial_backoff=1, max_backoff=2)).run(
                RequestContext(timeout=1e6), slept.append, refuse
            )
    for number, bound in enumerate([1, 2, 2]):
        drawn = slept[number::3]
        assert 0 <= min(drawn) < 0.1 * bound
        assert 0.9 * bound < max(drawn) <= bound


def sequence(made: Attempts, refusing: set[int], retries: int) -> list[int | None]:
    """The servers of a request's attempts, and None for a wait."""
    chosen: list[int | None] = []

    def attempt(endpoint: int) -> None:
        chosen.append(endpoint)
        if endpoint in refusing and len(chosen) < retries:
            raise UnavailableError("full")

    made.run(RequestContext(timeout=1e6), lambda seconds: chosen.append(None) if seconds else None, attempt)
    return chosen


def test_there_is_no_wait_until_every_server_has_rejected_the_request():
    chosen = sequence(attempts(3, Retry(initial_backoff=1)), {0, 1, 2}, 4)
    assert sorted(chosen[:3]) == [0, 1, 2]
    assert chosen[3] is None


def test_a_server_that_failed_is_avoided():
    made = attempts(3, Retry(initial_backoff=60, max_backoff=60))
    found = [sequence(made, {1}, 9) for _ in range(30)]
    assert [chosen for chosen in found if 1 in chosen] == [found[1]]
    assert sorted(chosen[-1] for chosen in found) == [0] * 15 + [2] * 15


def test_if_all_servers_failed_the_one_that_is_due_next_is_tried():
    made = attempts(2, Retry(initial_backoff=60, max_backoff=60))
    first = sequence(made, {0, 1}, 3)
    assert first[2] is None
    assert len(sequence(made, set(), 9)) == 1


def test_only_one_request_probes_a_server():
    made = attempts(2, Retry(initial_backoff=0.01, max_backoff=60))
    sequence(made, {0}, 9)
    for _ in range(12):
        made.failed(0, time.monotonic(), UnavailableError("gone"))
    made._memory[0].avoided_until = 0  # the time to probe it has come
    assert [made.choose(number, set()) for number in (0, 2, 4)] == [0, 1, 1]


def test_outcomes_of_attempts_before_the_last_failure_say_nothing_new():
    made = attempts(1, Retry())
    early = time.monotonic()
    made.failed(0, time.monotonic(), UnavailableError("gone"))
    made.failed(0, early, UnavailableError("gone"))
    assert made._memory[0].failures == 1
    made.succeeded(0, early)
    assert made._memory[0].failures == 1
    made.succeeded(0, time.monotonic())
    assert made._memory[0].failures == 0


def test_a_request_without_a_deadline_is_retried_for_a_minute():
    now = [0.0]

    def refuse(_: int) -> None:
        raise UnavailableError("gone")

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UnavailableError, match=r"no server accepted .* within (59|60)\.\d s: gone"),
    ):
        patch.setattr("florence2.transports.attempts.time.monotonic", lambda: now[0])
        attempts(1, Retry()).run(RequestContext(), sleep, refuse)
    assert 59 < now[0] <= 60


def test_threads_take_turns_too():
    made, chosen = attempts(4), []
    threads = [
        threading.Thread(target=lambda: made.run(RequestContext(), time.sleep, chosen.append)) for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chosen) == sorted(list(range(4)) * 10)
