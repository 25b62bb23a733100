"""What the log says of a question."""

import io
import json
import sys
from types import SimpleNamespace

import grpc
import pytest
from florence2.engine.v1.engine_pb2 import GenerateResponse
from florence2.v1 import Usage
from florence2_adapter.outcomes import Outcome

ANSWER = GenerateResponse(
    text="a secret",
    usage=Usage(
        prompt_tokens=9,
        generated_tokens=20,
        encode_milliseconds=250,
        decode_milliseconds=500,
        image_embedding_cached=True,
    ),
    first_token_milliseconds=100,
)
PENDING = SimpleNamespace(request_id="r1", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@pytest.fixture
def logged(monkeypatch):
    """`logged(outcome)`: the line about it."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", SimpleNamespace())
    from florence2_adapter.request_log import RequestLog

    def logged(outcome: Outcome, pending=PENDING) -> dict:
        stream = io.StringIO()
        RequestLog(stream).write(pending, outcome)
        (line,) = stream.getvalue().splitlines()
        return json.loads(line)

    return logged


def test_an_answers_line_tells_where_the_time_went_and_not_what_was_said(logged):
    line = logged(Outcome("caption", grpc.StatusCode.OK, 1.0, ANSWER))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "request_id": "r1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "task": "caption",
        "outcome": "ok",
        "seconds": 1.0,
        "queue_seconds": 0.25,
        "encode_seconds": 0.25,
        "decode_seconds": 0.5,
        "first_token_seconds": 0.6,
        "prompt_tokens": 9,
        "generated_tokens": 20,
        "image_embedding_cached": True,
    }


def test_a_refusals_line_is_short(logged):
    line = logged(
        Outcome("unknown", grpc.StatusCode.INVALID_ARGUMENT, 0.001), SimpleNamespace(request_id="", traceparent="?")
    )
    assert (line["outcome"], line["trace_id"], "prompt_tokens" in line) == ("invalid_argument", "", False)
