"""How long a request keeps its slot after its caller has left, i.e. cancelled the call or closed the connection."""

import base64
import contextlib
import http.client
import json
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest
from florence2.v1 import TaskRequest
from google.protobuf import json_format

from tests.conftest import EXAMPLE_SCENE
from tests.server.observation import metric_sum, seconds_until
from tests.server.streams import streaming
from tests.server.wire_requests import MODEL_INFER, infer_request

TOKENS = 1000
DECODING_SECONDS = 0.3
TIMEOUT_SECONDS = 1.0
FREE_WITHIN = 1.0  # seconds


@pytest.fixture(scope="module")
def server(start_server):
    """A server that serves its metrics, too: Triton begins to do so shortly after it is ready."""
    server = start_server()
    seconds_until(lambda: shows_metrics(server))
    return server


def shows_metrics(server) -> bool:
    try:
        return metric_sum(server, "florence2_slots") > 0
    except urllib.error.URLError:
        return False


def long_request(**fields) -> TaskRequest:
    """A request whose answer takes seconds."""
    return TaskRequest(
        ocr={}, generation={"num_beams": 1, "min_new_tokens": TOKENS, "max_new_tokens": TOKENS}, **fields
    )


@contextmanager
def grpc_unary(server, request: TaskRequest) -> Iterator[None]:
    message = infer_request(EXAMPLE_SCENE.read_bytes(), request.SerializeToString())
    with grpc.insecure_channel(server.grpc_url) as channel:
        call = channel.unary_unary(MODEL_INFER).future(message.SerializeToString())
        yield
        call.cancel()


@contextmanager
def grpc_stream(server, request: TaskRequest) -> Iterator[None]:
    with streaming(server, EXAMPLE_SCENE.read_bytes(), request):
        yield


@contextmanager
def http_unary(server, request: TaskRequest) -> Iterator[None]:
    with posted(server, "florence2/generate", request):
        yield


@contextmanager
def server_sent_events(server, request: TaskRequest) -> Iterator[None]:
    with posted(server, "florence2_stream/generate_stream", request):
        yield


@contextmanager
def posted(server, path: str, request: TaskRequest) -> Iterator[None]:
    """Send a request over HTTP; close the connection at the end, whatever has arrived by then."""
    body = {
        "IMAGE": base64.b64encode(EXAMPLE_SCENE.read_bytes()).decode(),
        "REQUEST": json_format.MessageToJson(request),
    }
    with contextlib.closing(http.client.HTTPConnection(server.host, server.ports.http)) as connection:
        connection.request("POST", f"/v2/models/{path}", json.dumps(body))
        yield


NAMES = {
    grpc_unary: "gRPC, unary",
    grpc_stream: "gRPC, stream",
    server_sent_events: "HTTP, server-sent events",
    http_unary: "HTTP, unary",
}


def slots_in_use(server) -> float:
    return metric_sum(server, "florence2_slots_in_use")


def requests_ended(server, outcome: str) -> float:
    return metric_sum(server, "florence2_requests_total", outcome=outcome)


def leave_once_decoding(server, request: TaskRequest, sending: Callable) -> None:
    """Send a request as the only one, and leave soon after its first token."""
    assert slots_in_use(server) == 0
    with sending(server, request):
        seconds_until(lambda: slots_in_use(server), limit=10)
        time.sleep(DECODING_SECONDS)


@pytest.mark.parametrize("sending", [grpc_unary, grpc_stream, server_sent_events])
def test_the_slot_is_free_within_a_second(server, figure, sending):
    cancelled = requests_ended(server, "cancelled")
    leave_once_decoding(server, long_request(), sending)
    seconds = seconds_until(lambda: not slots_in_use(server))
    figure(f"O8: {NAMES[sending]}: seconds from leaving to a free slot", seconds, at_most=FREE_WITHIN)
    seconds_until(lambda: requests_ended(server, "cancelled") == cancelled + 1, limit=10)


def test_tritonserver_2_51_does_not_notice_that_a_caller_of_unary_http_has_left(server, figure):
    """If this fails, Triton has learned to notice it: correct docs/operations.md."""
    answered = requests_ended(server, "ok")
    leave_once_decoding(server, long_request(), http_unary)
    seconds = seconds_until(lambda: not slots_in_use(server))
    figure(f"O8: {NAMES[http_unary]}: seconds from leaving to a free slot, when the answer is complete", seconds)
    seconds_until(lambda: requests_ended(server, "ok") == answered + 1, limit=10)


def test_a_timeout_in_the_request_frees_the_slot_of_an_http_caller_who_has_left(server, figure):
    expired = requests_ended(server, "deadline_exceeded")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    leave_once_decoding(server, long_request(timeout_seconds=TIMEOUT_SECONDS), http_unary)
    seconds_until(lambda: not slots_in_use(server))
    late = time.monotonic() - deadline
    figure(f"O8: {NAMES[http_unary]}: seconds from the request's deadline to a free slot", late, at_most=FREE_WITHIN)
    seconds_until(lambda: requests_ended(server, "deadline_exceeded") == expired + 1, limit=10)
