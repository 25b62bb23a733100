"""The lines of the request log."""

import io
import json
from types import SimpleNamespace

import grpc
from florence2.v1 import Usage
from florence2_server.stub.outcomes import Outcome, StepOutcome
from florence2_server.stub.request_log import RequestLog
from florence2_server.v1.engine_pb2 import GenerateResponse

COMPLETION = GenerateResponse(
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


def step(status: grpc.StatusCode = grpc.StatusCode.OK) -> StepOutcome:
    """How a step ended."""
    if status is not grpc.StatusCode.OK:
        return StepOutcome("ocr", status)
    return StepOutcome("caption", status, 1.0, COMPLETION)


def logged(outcome: Outcome, pending=PENDING) -> dict:
    """The line about an outcome."""
    stream = io.StringIO()
    RequestLog(stream).write(pending, outcome)
    (line,) = stream.getvalue().splitlines()
    return json.loads(line)


def test_a_successful_requests_line_has_times_and_counts_but_no_text():
    line = logged(Outcome("caption", grpc.StatusCode.OK, 1.0, (step(),)))
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


def test_a_rejected_requests_line_is_short():
    line = logged(
        Outcome("unknown", grpc.StatusCode.INVALID_ARGUMENT, 0.001), SimpleNamespace(request_id="", traceparent="?")
    )
    assert (line["outcome"], line["trace_id"], "prompt_tokens" in line) == ("invalid_argument", "", False)


def test_the_line_of_a_request_with_several_steps_has_sums():
    steps = (step(), step(), step(grpc.StatusCode.INVALID_ARGUMENT))
    line = logged(Outcome("task_list", grpc.StatusCode.OK, 1.5, steps, is_single_step=False))
    assert (line["steps"], line["failed_steps"], line["prompt_tokens"], line["generated_tokens"]) == (3, 1, 18, 40)
    assert "queue_seconds" not in line


def test_the_adapter_is_logged_if_it_can_be_one():
    def of(adapter: str) -> dict:
        return logged(Outcome("caption", grpc.StatusCode.OK, 1.0, (step(),), adapter=adapter))

    assert of("invoices")["adapter"] == "invoices"
    assert "adapter" not in of("")
    assert "adapter" not in of("a caller's text")
