"""Streams of a real server: together, the events are the answer of the model florence2."""

import base64
import http.client
import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from florence2.v1 import GenerationOptions, StreamEvent, TaskRequest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.reference import TASKS, png
from tests.server.conftest import CALL_SECONDS, children_of, infer, tensors
from tests.server.observation import metric, metric_sum, seconds_until
from tests.server.streams import (
    assert_same_answer,
    by_step,
    items_of,
    items_of_response,
    stream_tensors,
    streamed,
    streaming,
    text_of,
)
from tests.server.test_health import runs_model
from tests.server.test_wire import BAD_REQUESTS
from tests.server.wire_requests import add_tensor, element, only_element
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

EXAMPLE = Path(__file__).parents[2] / "examples" / "scene.png"  # with several objects and pieces of text
GREEDY = GenerationOptions(num_beams=1, max_new_tokens=200)
BEAMS = GenerationOptions(num_beams=3, max_new_tokens=200)
LONG = GenerationOptions(num_beams=1, min_new_tokens=400, max_new_tokens=400)
PLANS = {
    "caption grounding": TaskRequest(caption_grounding={}, generation=GREEDY),
    "region analysis": TaskRequest(region_analysis={}, generation=GREEDY),
    "region analysis with beams": TaskRequest(region_analysis={}, generation=BEAMS),
    "task list": TaskRequest(
        task_list={"tasks": [{"caption": {}}, {"ocr_with_region": {}}, {"caption_grounding": {}}]}, generation=GREEDY
    ),
}


@pytest.fixture(scope="module")
def scene() -> bytes:
    return png(draw(sample_scene(11)))


def test_the_model_is_ready_and_decoupled(plain_client):
    assert plain_client.is_model_ready("florence2_stream", "1")
    assert plain_client.get_model_config("florence2_stream").config.model_transaction_policy.decoupled


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: next(iter(task)))
def test_together_the_events_of_a_task_are_the_unary_answer(server, plain_client, scene, task, options):
    request = TaskRequest(**task, generation=options)
    events = streamed(server, scene, request)
    answer = infer(plain_client, scene, request)
    assert events[-1].WhichOneof("event") == "response"
    assert_same_answer(events[-1].response, answer)
    assert text_of(events) == answer.text
    assert items_of(events) == items_of_response(events[-1].response)
    assert {event.step for event in events} == {0}


def test_text_arrives_while_it_is_generated(server, scene):
    events = streamed(server, scene, TaskRequest(ocr={}, generation=LONG))
    assert events[-1].response.usage.generated_tokens == 400
    assert len(events) > 20
    with streaming(server, scene, TaskRequest(ocr={}, generation=LONG)) as stream:
        assert len(list(stream.events())) > 20
    assert stream.seconds[0] < 0.2 * stream.seconds[-1]


@pytest.mark.parametrize(("task", "locations"), [("object_detection", 4), ("ocr_with_region", 8)])
def test_an_item_arrives_long_before_the_answer_ends(server, task, locations):
    events = streamed(server, EXAMPLE.read_bytes(), TaskRequest(**{task: {}}, generation=LONG))
    is_item = [event.WhichOneof("event") in ("detection", "text_region") for event in events]
    assert sum(is_item) > 1
    first = is_item.index(True)
    assert len(text_of(events[:first])) < len(text_of(events)) / 2
    for index in np.flatnonzero(is_item):
        assert text_of(events[:index]).count("<loc_") >= sum(is_item[: index + 1]) * locations


def test_a_raw_stream_has_only_text(server, plain_client, scene):
    request = TaskRequest(object_detection={}, raw=True, generation=GREEDY)
    *deltas, last = streamed(server, scene, request)
    assert {event.WhichOneof("event") for event in deltas} == {"text_delta"}
    assert_same_answer(last.response, infer(plain_client, scene, request))


def test_a_truncated_stream_is_the_truncated_answer(server, plain_client, scene):
    request = TaskRequest(object_detection={}, generation={"num_beams": 1, "max_new_tokens": 9})
    events = streamed(server, scene, request)
    assert text_of(events) == events[-1].response.text
    assert_same_answer(events[-1].response, infer(plain_client, scene, request))


@pytest.mark.parametrize("request_", PLANS.values(), ids=PLANS)
def test_a_plan_is_streamed_step_by_step(server, plain_client, scene, request_):
    events = streamed(server, scene, request_)
    answer = infer(plain_client, scene, request_)
    assert_same_answer(events[-1].response, answer)
    steps = by_step(events)
    assert list(steps) == list(range(len(steps)))
    assert len(steps) > 1
    for started, *content, ended in steps.values():
        assert started.WhichOneof("event") == "step_started"
        assert ended.WhichOneof("event") == "step_response"
        assert ended.step_response.request == started.step_started.request
        assert text_of(content) == ended.step_response.response.text
        assert items_of(content) == items_of_response(ended.step_response.response)


def test_a_step_about_a_region_names_its_detection(server, scene):
    events = streamed(server, scene, PLANS["region analysis"])
    found = items_of(by_step(events)[0])
    started = [event.step_started for event in events if event.HasField("step_started")]
    assert [step.item for step in started if step.HasField("item")] == list(range(len(found)))


def test_streams_at_once_are_not_mixed_up(server, plain_client, scene):
    requests = [TaskRequest(**task, generation=GREEDY) for task in TASKS] * 2
    with ThreadPoolExecutor(len(requests)) as callers:
        streams = list(callers.map(lambda request: streamed(server, scene, request), requests))
    for request, events in zip(requests[: len(TASKS)], streams, strict=False):
        # Scores differ in the last digits with what else is in the batch.
        assert text_of(events) == infer(plain_client, scene, request).text == events[-1].response.text
        assert items_of(events) == items_of_response(events[-1].response)


# HTTP: server-sent events with JSON.


def sse_connection(server, image: bytes, request: dict) -> http.client.HTTPConnection:
    """A connection on which the request of an HTTP stream has been sent."""
    connection = http.client.HTTPConnection(server.host, server.ports.http, timeout=CALL_SECONDS)
    body = {"IMAGE": base64.b64encode(image).decode(), "REQUEST": json.dumps(request)}
    connection.request("POST", "/v2/models/florence2_stream/generate_stream", json.dumps(body))
    return connection


def sse(server, image: bytes, request: dict) -> list[StreamEvent]:
    """The events of an HTTP stream."""
    connection = sse_connection(server, image, request)
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    lines = [line.removeprefix(b"data: ") for line in response.read().split(b"\n\n") if line]
    connection.close()
    return [json_format.Parse(json.loads(line)["RESPONSE"], StreamEvent()) for line in lines]


def test_http_streams_json_as_server_sent_events(server, plain_client, scene):
    events = sse(server, scene, {"objectDetection": {}, "generation": {"numBeams": 1}})
    answer = infer(plain_client, scene, TaskRequest(object_detection={}, generation={"num_beams": 1}))
    assert text_of(events) == answer.text
    assert [item.label for item in items_of(events)] == [item.label for item in answer.detections.detections]
    assert events[-1].response.text == answer.text


def test_an_error_over_http_is_an_event_too(server, scene):
    (event,) = sse(server, scene, {"regionToOcr": {}})
    assert (event.error.status, "region_to_ocr.region" in event.error.message) == ("INVALID_ARGUMENT", True)


# Errors.


@pytest.mark.parametrize(("request_", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_an_invalid_request_ends_with_the_unary_error(server, plain_client, scene, request_, message):  # noqa: ARG001
    (event,) = streamed(server, scene, request_)
    with pytest.raises(InferenceServerException) as error:
        plain_client.infer("florence2", tensors([scene], [request_.SerializeToString()]), client_timeout=CALL_SECONDS)
    assert event.error.status == "INVALID_ARGUMENT"
    assert event.error.message == error.value.message()


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"\xff\xff", "REQUEST"), (b'{"no_such_task": {}}', "no_such_task"), (b"", "task"), (b"{broken", "REQUEST")],
)
def test_garbage_for_a_request_ends_with_an_error_in_its_encoding(server, scene, data, message):
    with streaming(server, scene, data) as stream:
        (element,) = stream.elements()
    event = json_format.Parse(element, StreamEvent()) if data.startswith(b"{") else StreamEvent.FromString(element)
    assert event.error.status == "INVALID_ARGUMENT"
    assert message in event.error.message


def test_a_bad_image_ends_with_an_error(server, scene):
    for image in (b"", b"no image", scene[: len(scene) // 2]):
        (event,) = streamed(server, image, TaskRequest(caption={}))
        assert event.error.status == "INVALID_ARGUMENT"
        assert "IMAGE" in event.error.message or "image" in event.error.message


def test_too_large_an_image_ends_with_an_error(server):
    (event,) = streamed(server, bytes(60 << 20), TaskRequest(caption={}))
    assert event.error.status == "INVALID_ARGUMENT"
    assert event.error.message.startswith("IMAGE: got '62914560 bytes', expected at most")


@pytest.mark.parametrize("shape", [[0], [2], [1, 1]])
def test_tensors_of_another_shape_are_rejected_by_triton(server, scene, shape):
    inputs = stream_tensors(scene, TaskRequest(caption={}).SerializeToString())
    for tensor in inputs:
        tensor.set_shape(shape)
        tensor.set_data_from_numpy(np.full(shape, scene, dtype=np.object_))
    with triton.InferenceServerClient(server.grpc_url) as client:
        errors = []
        client.start_stream(lambda result, error: errors.append((result, error)))
        client.async_stream_infer("florence2_stream", inputs)
        seconds_until(lambda: errors)
        client.stop_stream()
    ((result, error),) = errors
    assert result is None
    assert "shape" in error.message()


MALFORMED = {
    "length longer than the content": ([1], "BYTES", b"\xff\xff\x00\x00abc"),
    "half a length": ([1], "BYTES", b"\x01\x00"),
    "nothing": ([1], "BYTES", b""),
    "content beyond the element": ([1], "BYTES", element(b"abc") + element(b"def")),
    "another type": ([1], "INT32", b"\x01\x00\x00\x00"),
    "a shape below zero": ([-1], "BYTES", element(b"abc")),
}


@pytest.mark.parametrize(("shape", "datatype", "content"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("name", ["IMAGE", "REQUEST"])
def test_a_malformed_tensor_fails_only_its_own_stream(server, scene, name, shape, datatype, content):
    message = service_pb2.ModelInferRequest(model_name="florence2_stream")
    request = TaskRequest(caption={}, generation={"max_new_tokens": 3}).SerializeToString()
    for each, data in (("IMAGE", scene), ("REQUEST", request)):
        valid = ([1], "BYTES", element(data))
        add_tensor(message, each, *((shape, datatype, content) if each == name else valid))
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        (response,) = stub.ModelStreamInfer(iter([message]), timeout=CALL_SECONDS)
    events = [StreamEvent.FromString(only_element(each)) for each in response.infer_response.raw_output_contents]
    assert response.error_message or events[0].error.message
    assert streamed(server, scene, TaskRequest(caption={}))[-1].HasField("response")


def test_a_unary_request_is_refused(plain_client, scene):
    inputs = stream_tensors(scene, TaskRequest(caption={}).SerializeToString())
    with pytest.raises(InferenceServerException, match="decoupled"):
        plain_client.infer("florence2_stream", inputs, client_timeout=CALL_SECONDS)


def test_over_the_limit_streams_are_refused_soon(short_queue, scene):
    server = short_queue
    with streaming(server, scene, TaskRequest(ocr={}, generation=LONG)) as running:
        next(running.events())
        with streaming(server, scene, TaskRequest(ocr={}, generation=LONG)):
            seconds_until(lambda: metric(server, "florence2_waiting_requests") == 1)
            started = time.monotonic()
            (event,) = streamed(server, scene, TaskRequest(caption={}))
            assert time.monotonic() - started < 1
    assert event.error.status == "UNAVAILABLE"
    assert event.error.message.startswith("queue_requests: ")


def test_if_the_stub_of_florence2_is_gone_a_stream_ends_as_unavailable(doomed_server, scene):
    server = doomed_server
    with streaming(server, scene, TaskRequest(ocr={}, generation=LONG)) as stream:
        events = stream.events()
        next(events)
        (stub,) = [child for child in children_of(server.process_id) if runs_model(child)]
        os.kill(stub, signal.SIGKILL)
        *_, last = events
    (only,) = streamed(server, scene, TaskRequest(caption={}))
    for event in (last, only):
        assert event.error.status == "UNAVAILABLE"
        assert "florence2 cannot be reached" in event.error.message


# Cancellation.


def test_a_cancelled_stream_frees_its_slot(one_slot, scene):
    server = one_slot
    with streaming(server, scene, TaskRequest(region_analysis={}, generation=LONG)) as stream:
        events = stream.events()
        assert [next(events).WhichOneof("event") for _ in range(2)] == ["step_started", "text_delta"]
        seconds_until(lambda: metric(server, "florence2_slots_in_use") == 1)
        stream.cancel()
        freed = seconds_until(lambda: metric(server, "florence2_slots_in_use") == 0)
    assert freed < 2
    assert streamed(server, scene, TaskRequest(caption={}))[-1].HasField("response")


def test_a_cancelled_stream_leaves_the_queue(one_slot, scene):
    server = one_slot
    with streaming(server, scene, TaskRequest(ocr={}, generation=LONG)) as running:
        events = running.events()
        next(events)
        with streaming(server, scene, TaskRequest(ocr={}, generation=LONG)) as waiting:
            seconds_until(lambda: metric(server, "florence2_waiting_requests") == 1)
            waiting.cancel()
            seconds_until(lambda: metric(server, "florence2_waiting_requests") == 0)
        *_, last = events
    assert last.HasField("response")


def test_a_caller_who_leaves_over_http_frees_its_slot_with_the_next_event(one_slot, scene):
    """A unary one does not: tritonserver 2.51 notices only that it cannot write."""
    server = one_slot

    def cancelled() -> float:
        return metric_sum(server, "florence2_requests_total", outcome="cancelled", task="ocr")

    before = cancelled()
    connection = sse_connection(server, scene, {"ocr": {}, "generation": {"numBeams": 1, "minNewTokens": 900}})
    connection.getresponse().read1(1)
    seconds_until(lambda: metric(server, "florence2_slots_in_use") == 1)
    connection.close()
    assert seconds_until(lambda: metric(server, "florence2_slots_in_use") == 0) < 2
    seconds_until(lambda: cancelled() == before + 1)


def test_a_timeout_ends_a_stream(server, scene):
    request = TaskRequest(ocr={}, generation=LONG, timeout_seconds=0.3)
    *_, last = streamed(server, scene, request)
    assert last.error.status == "DEADLINE_EXCEEDED"
