"""The limits of what is forwarded from stub to stub, and what the sweep for cancelled streams survives."""

import asyncio
import socket
import time

import pytest
from florence2.v1 import StreamEvent
from florence2_server.stub.forwarding import Forwarder
from florence2_server.stub.sockets import STREAM, socket_path
from florence2_server.stub.wire import Encoding, serialize
from google.protobuf import json_format

from tests.stub.streams import BINARY_REQUEST, Caller, error_of

pytest_plugins = ["tests.stub.streams"]

LIMIT = 100
IMAGE = b"x" * 50


@pytest.fixture
def small_forwarder(temporary_folder):  # noqa: ARG001 - it finds the sockets there
    """A forwarder that may hold `LIMIT` bytes of images."""
    forwarder = Forwarder("florence2", LIMIT, on_refusal=lambda: forwarder.refusals.append(1))
    forwarder.refusals = []
    yield forwarder
    forwarder.close()


@pytest.fixture
def hanging(temporary_folder):  # noqa: ARG001 - the socket lies there
    """The socket of an instance that hangs: it accepts connections and never reads."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path("florence2", "9", STREAM)))
        listener.listen()
        yield


def forward(forwarder: Forwarder, *callers: Caller) -> None:
    for caller in callers:
        forwarder.forward(caller)


@pytest.mark.usefixtures("hanging")
@pytest.mark.parametrize("encoding", Encoding)
def test_over_the_limit_a_stream_is_refused_before_its_image_is_read(small_forwarder, encoding):
    taken = [Caller(image=IMAGE), Caller(image=IMAGE)]
    refused = Caller(BINARY_REQUEST if encoding is Encoding.BINARY else b'{"caption": {}}')
    forward(small_forwarder, *taken, refused)
    (event,) = refused.rest()
    parsed = StreamEvent.FromString(event) if encoding is Encoding.BINARY else json_format.Parse(event, StreamEvent())
    assert serialize(parsed, encoding) == event
    message = "queue_bytes: got 100 bytes of images to forward, expected fewer than 100; try again later"
    assert (parsed.error.status, parsed.error.message) == ("UNAVAILABLE", message)
    assert list(refused.unread) == ["IMAGE"]
    assert len(small_forwarder.refusals) == 1
    assert all(caller.events.empty() and not caller.unread for caller in taken)


@pytest.mark.usefixtures("hanging")
def test_a_burst_holds_no_more_images_than_the_limit(small_forwarder):
    callers = [Caller(image=IMAGE) for _ in range(300)]
    forward(small_forwarder, *callers)
    assert [caller.unread for caller in callers[:2]] == [{}, {}]
    for caller in callers[2:]:
        assert error_of(caller.rest()[0])[0] == "UNAVAILABLE"
        assert caller.unread


def test_a_single_image_may_be_larger_than_the_limit(serve, small_forwarder, arrivals):
    serve(arrivals)
    image = b"x" * (8 << 20)
    forward(small_forwarder, Caller(image=image))
    request = arrivals.next()
    assert request.input("IMAGE").item() == image
    request.end()


def test_an_image_does_not_count_once_it_is_written(serve, small_forwarder, arrivals):
    serve(arrivals)
    requests = []
    for _ in range(5):
        caller = Caller(image=IMAGE * 2)
        forward(small_forwarder, caller)
        requests.append(arrivals.next())
        requests[-1].emit(b"first")  # with an event, the request has been written for sure
        assert caller.next() == b"first"
    for request in requests:
        request.end()


@pytest.mark.usefixtures("hanging")
def test_an_image_does_not_count_once_its_caller_has_cancelled(small_forwarder):
    # More than are written at once, so that some are cancelled before.
    callers = [Caller(image=b"x" * (LIMIT // 10)) for _ in range(10)]
    forward(small_forwarder, *callers)
    for caller in callers:
        caller.cancelled = True
        assert caller.rest() == []
    again = [Caller(image=b"x" * (LIMIT // 10)) for _ in range(10)]
    forward(small_forwarder, *again)
    assert all(caller.events.empty() for caller in again)


def test_an_image_does_not_count_once_its_stream_has_failed(small_forwarder):
    for _ in range(3):
        caller = Caller(image=IMAGE * 2)
        forward(small_forwarder, caller)
        assert "florence2 cannot be reached" in error_of(caller.rest()[0])[1]


@pytest.mark.usefixtures("hanging")
def test_an_instance_that_hangs_does_not_stop_streams_to_another(serve, forwarder, arrivals):
    serve(arrivals)
    begin = time.monotonic()
    forward(forwarder, *(Caller() for _ in range(20)))
    for _ in range(10):
        arrivals.next().end()
    assert time.monotonic() - begin < 10  # gRPC gives up after 20 seconds


def test_the_sweep_goes_on_after_an_exception(serve, forwarder, arrivals, monkeypatch, caplog):
    serve(arrivals)
    to_thread = asyncio.to_thread
    failures = iter([RuntimeError("can't start new thread")] * 2)

    async def failing_twice(*arguments):
        if failure := next(failures, None):
            raise failure
        return await to_thread(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", failing_twice)
    caller = Caller()
    forward(forwarder, caller)
    request = arrivals.next()
    caller.cancelled = True
    assert caller.rest() == []
    assert [record.getMessage() for record in caplog.records] == ["streams cannot be checked for cancellation"] * 2
    request.end()
