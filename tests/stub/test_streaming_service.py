"""Streams from stub to stub, over a real socket; both stubs are this process here, and so have the same parent."""

import os
import queue
import stat
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from florence2.v1 import StreamEvent
from florence2_server.stub.forwarding import Forwarder
from florence2_server.stub.streaming_service import StreamingServer
from florence2_server.stub.wire import Encoding, serialize
from google.protobuf import json_format

from tests.stub.streams import BINARY_REQUEST, Arrivals, Caller, error_of, until

pytest_plugins = ["tests.stub.streams"]


def test_a_request_arrives_as_its_caller_sent_it(serve, forwarder, arrivals):
    serve(arrivals)
    forwarder.forward(Caller(timeout=2.5))
    request = arrivals.next()
    assert request.is_streamed
    assert (request.request_id, request.traceparent, request.queue_timeout) == ("its id", "its trace", 2.5)
    assert request.input("REQUEST").tolist() == [[BINARY_REQUEST]]
    assert request.input("IMAGE").tolist() == [[b"an image"]]
    request.end()


def test_no_timeout_is_none(serve, forwarder, arrivals):
    serve(arrivals)
    forwarder.forward(Caller())
    request = arrivals.next()
    assert request.queue_timeout is None
    request.end()


def test_events_arrive_one_by_one_and_in_order(serve, forwarder, arrivals):
    serve(arrivals)
    caller = Caller()
    forwarder.forward(caller)
    request = arrivals.next()
    request.emit(b"first")
    assert caller.next() == b"first"
    rest = [f"event {number}".encode() for number in range(200)]
    for event in rest:
        request.emit(event)
    request.end()
    assert caller.rest() == rest


def test_many_streams_at_once_are_not_mixed_up(serve, forwarder, arrivals):
    serve(arrivals)
    callers = [Caller(image=str(number).encode()) for number in range(40)]
    for caller in callers:
        forwarder.forward(caller)

    def answer() -> None:
        for _ in range(10):
            request = arrivals.next()
            name = request.input("IMAGE").item()
            for number in range(20):
                request.emit(name + f" {number}".encode())
            request.end()

    threads = [threading.Thread(target=answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number, caller in enumerate(callers):
        assert caller.rest() == [f"{number} {event}".encode() for event in range(20)]
    for thread in threads:
        thread.join()


def test_a_refusal_does_not_wait_behind_streams_that_do(serve, forwarder, arrivals):
    serve(arrivals)
    waiting = []
    for _ in range(300):
        forwarder.forward(Caller())
        waiting.append(arrivals.next())
    caller = Caller()
    begin = time.monotonic()
    forwarder.forward(caller)
    refused = arrivals.next()
    refused.emit(b"no")
    refused.end()
    assert caller.rest() == [b"no"]
    assert time.monotonic() - begin < 1  # milliseconds on an idle machine
    for request in waiting:
        request.end()


def test_a_caller_who_cancels_cancels_the_request(serve, forwarder, arrivals):
    serve(arrivals)
    caller = Caller()
    forwarder.forward(caller)
    request = arrivals.next()
    request.emit(b"first")
    assert caller.next() == b"first"
    assert not request.is_cancelled()
    caller.cancelled = True
    assert caller.next() is None
    until(request.is_cancelled)
    request.emit(b"too late")  # as long as the dispatcher has not noticed
    request.end()
    assert caller.events.empty()


def test_one_callers_failing_check_does_not_end_the_others(serve, forwarder, arrivals, monkeypatch):
    serve(arrivals)
    broken, caller = Caller(), Caller()
    monkeypatch.setattr(broken, "is_cancelled", lambda: 1 / 0)
    requests = []
    for each in (broken, caller):
        forwarder.forward(each)
        requests.append(arrivals.next())
    caller.cancelled = True
    assert caller.next() is None
    until(requests[1].is_cancelled)
    assert not requests[0].is_cancelled()
    for request in requests:
        request.end()


@pytest.mark.parametrize("encoding", Encoding)
def test_without_the_other_stub_the_error_is_an_event_in_the_requests_encoding(forwarder, encoding):
    data = BINARY_REQUEST if encoding is Encoding.BINARY else b'{"caption": {}}'
    caller = Caller(data)
    forwarder.forward(caller)
    (event,) = caller.rest()
    parsed = StreamEvent.FromString(event) if encoding is Encoding.BINARY else json_format.Parse(event, StreamEvent())
    assert serialize(parsed, encoding) == event
    assert parsed.error.status == "UNAVAILABLE"
    assert "florence2 cannot be reached" in parsed.error.message


def test_a_socket_without_a_server_is_unavailable_and_found_when_it_is_back(serve, forwarder, arrivals):
    server = StreamingServer("florence2", "0", arrivals)
    server.close()
    caller = Caller()
    forwarder.forward(caller)
    assert error_of(caller.rest()[0])[0] == "UNAVAILABLE"
    serve(arrivals)

    def is_back() -> bool:
        caller = Caller()
        forwarder.forward(caller)
        try:
            arrivals_next = arrivals._arrived.get(timeout=0.5)
        except queue.Empty:
            return False
        arrivals_next.end()
        return caller.rest() == []

    until(is_back)


def test_a_server_that_stops_ends_its_streams_as_unavailable(forwarder, arrivals):
    server = StreamingServer("florence2", "0", arrivals)
    caller = Caller()
    forwarder.forward(caller)
    request = arrivals.next()
    request.emit(b"first")
    assert caller.next() == b"first"
    server.close()
    (event,) = caller.rest()
    assert error_of(event)[0] == "UNAVAILABLE"
    assert request.is_cancelled()
    request.emit(b"too late")
    request.end()


def test_an_exception_of_the_dispatcher_is_an_internal_error(serve, forwarder):
    serve(SimpleNamespace(dispatch=lambda _: 1 / 0))
    caller = Caller()
    forwarder.forward(caller)
    (event,) = caller.rest()
    assert error_of(event)[0] == "INTERNAL"


def test_inputs_that_cannot_be_read_are_an_internal_error(serve, forwarder, arrivals, monkeypatch):
    serve(arrivals)
    caller = Caller()
    monkeypatch.setattr(caller, "input", lambda _: 1 / 0)
    forwarder.forward(caller)
    (event,) = caller.rest()
    assert error_of(event) == ("INTERNAL", "ZeroDivisionError: division by zero")


def test_a_stream_ends_even_if_nothing_can_be_sent(serve, forwarder, arrivals, monkeypatch):
    serve(arrivals)
    caller = Caller()
    monkeypatch.setattr(caller, "emit", lambda _: 1 / 0)
    forwarder.forward(caller)
    request = arrivals.next()
    request.emit(b"first")
    assert caller.rest() == []
    until(request.is_cancelled)
    request.end()


def test_instances_take_turns(serve, forwarder):
    instances = [Arrivals(), Arrivals()]
    for number, arrivals in enumerate(instances):
        serve(arrivals, f"florence2_0_{number}")
    for _ in range(6):
        forwarder.forward(Caller())
    for arrivals in instances:
        for _ in range(3):
            arrivals.next().end()


def test_closing_the_forwarder_ends_its_streams(serve, arrivals):
    serve(arrivals)
    forwarder, caller = Forwarder("florence2"), Caller()
    forwarder.forward(caller)
    request = arrivals.next()
    forwarder.close()
    assert caller.rest() == []
    until(request.is_cancelled)


def test_no_other_user_has_access(serve, arrivals, temporary_folder):
    serve(arrivals)
    (folder,) = temporary_folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_waiting_stream_holds_no_copy_of_its_image(serve, forwarder, arrivals):
    """The dispatcher holds the only one, and counts it."""
    serve(arrivals)
    size, waiting = 8 << 20, []
    process = psutil.Process(os.getpid())
    for number in range(25):
        if number == 5:  # the buffers have grown
            before = process.memory_info().rss
        forwarder.forward(Caller(image=os.urandom(1024) * (size // 1024)))
        waiting.append(arrivals.next())
        waiting[-1].input("IMAGE")
    time.sleep(0.5)
    assert process.memory_info().rss - before < 5 * size  # 20 streams
    for request in waiting:
        request.end()
