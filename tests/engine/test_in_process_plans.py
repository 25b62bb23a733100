"""`florence2_server.in_process`: cascades, task lists and streams."""

import asyncio
import time
from contextlib import closing

import pytest
from florence2.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    RequestCancelledError,
)
from florence2.transports import AsyncStreamingTransport, RequestContext, StreamingTransport
from florence2.v1 import TaskRequest, TaskResponse
from florence2_server.in_process import InProcess

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE

SCENE = EXAMPLE_SCENE.read_bytes()
LONG = {"min_new_tokens": 900, "max_new_tokens": 1000}
CAPTION = TaskRequest(caption={})
DETECTION = TaskRequest(object_detection={})
BEAMS = TaskRequest(object_detection={}, generation={"num_beams": 3})
OUTSIDE = TaskRequest(region_to_category={"region": {"x_min": 9000, "y_min": 0, "x_max": 9100, "y_max": 9}})


@pytest.fixture(scope="module")
def transport():
    transport = InProcess(DEMO_CHECKPOINT, device="cpu", slots=4)
    yield transport
    transport.close()


@pytest.fixture(params=["infer", "infer_async"])
def infer(transport, request):
    """`infer(request)`: the response, by either method."""

    def infer(task_request, context=None):
        context = context or RequestContext()
        if request.param == "infer":
            return transport.infer(SCENE, task_request, context).response
        return asyncio.run(transport.infer_async(SCENE, task_request, context)).response

    return infer


@pytest.fixture(params=["stream", "stream_async"])
def stream(transport, request):
    """`stream(request)`: all events, by either method."""

    async def collect(task_request, context):
        return [reply.event async for reply in transport.stream_async(SCENE, task_request, context)]

    def stream(task_request, context=None):
        context = context or RequestContext()
        if request.param == "stream":
            return [reply.event for reply in transport.stream(SCENE, task_request, context)]
        return asyncio.run(collect(task_request, context))

    return stream


def task_list(*tasks, **fields):
    return TaskRequest(task_list={"tasks": tasks}, **fields)


def certain(response):
    """The response without what depends on the time, the cache or the other rows of the batch."""
    copy = TaskResponse()
    copy.CopyFrom(response)
    for field in ("usage", "token_log_probabilities", "token_masses", "text_result", "detections"):
        copy.ClearField(field)
    for step in copy.steps:
        if step.HasField("response"):
            step.response.CopyFrom(certain(step.response)[0])
    return copy, response.WhichOneof("result")


def test_a_task_list_answers_as_its_requests_do(infer):
    tasks = [CAPTION, DETECTION, BEAMS, TaskRequest(caption={}, raw=True), TaskRequest(prompt="<OCR>")]
    response = infer(task_list(*tasks))
    assert [certain(step.response) for step in response.steps] == [certain(infer(task)) for task in tasks]


def test_a_task_list_encodes_its_image_once(image_file):
    transport = InProcess(DEMO_CHECKPOINT, device="cpu", slots=4, embedding_cache_bytes=0)
    with closing(transport):
        image = image_file(seed=7)
        response = transport.infer(image, task_list(*[CAPTION] * 4), RequestContext()).response
        assert [step.response.usage.image_embedding_cached for step in response.steps] == [False, True, True, True]
        assert not response.usage.image_embedding_cached
        assert transport.engine.embedding_statistics.misses == 1


def test_a_cascade_answers_as_its_steps_do(infer):
    response = infer(TaskRequest(region_analysis={"region_task": "REGION_TASK_CATEGORY"}))
    detection, *regions = response.steps
    assert certain(detection.response) == certain(infer(DETECTION))
    boxes = [found.bounding_box for found in detection.response.detections.detections]
    assert [step.item for step in regions] == [0, 1, 2]
    for step, box in zip(regions, boxes, strict=True):
        alone = infer(TaskRequest(region_to_category={"region": box}))
        assert certain(step.response) == certain(alone)


def test_a_caption_is_grounded(infer):
    caption, grounding = infer(TaskRequest(caption_grounding={})).steps
    assert caption.response.text_result.text == infer(CAPTION).text_result.text
    alone = infer(TaskRequest(phrase_grounding={"caption": caption.response.text_result.text}))
    assert certain(grounding.response) == certain(alone)


def test_a_failure_in_a_task_list_loses_no_other_result(infer):
    response = infer(task_list(CAPTION, OUTSIDE))
    assert response.steps[0].response.text_result.text
    assert response.steps[1].error.status == "INVALID_ARGUMENT"
    assert response.steps[1].error.message.startswith("task_list.tasks[1].region_to_category.region")


def test_a_task_list_of_failures_is_an_error_that_names_the_field(infer):
    with pytest.raises(InvalidArgumentError) as error:
        infer(task_list(OUTSIDE, OUTSIDE))
    assert error.value.field.startswith("task_list.tasks[0].region_to_category.region")


def test_a_task_list_that_is_too_long_is_rejected(infer):
    with pytest.raises(InvalidArgumentError, match=r"task_list\.tasks: got '17 requests', expected at most 16"):
        infer(task_list(*[CAPTION] * 17))


@pytest.mark.parametrize("timeout", [None, 100])
def test_the_timeout_of_the_request_is_kept(infer, transport, timeout):
    request = TaskRequest(caption={}, generation=LONG, timeout_seconds=0.2)
    with pytest.raises(DeadlineExceededError, match=r"after 0\.2 s"):
        infer(request, RequestContext(timeout=timeout))
    assert_idle(transport)


def test_the_timeout_of_a_task_list_ends_all_of_its_steps(infer, transport):
    with pytest.raises(DeadlineExceededError, match=r"after 0\.2 s"):
        infer(task_list(*[CAPTION] * 6, generation=LONG), RequestContext(timeout=0.2))
    assert_idle(transport)


def assert_idle(transport):
    until = time.monotonic() + 20
    while (load := transport.engine.statistics) and (load.running or load.waiting):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("request_", [CAPTION, DETECTION, BEAMS, TaskRequest(caption={}, raw=True)])
def test_the_deltas_of_a_stream_are_the_text_and_its_last_event_is_the_response(transport, stream, request_):
    *events, last = stream(request_)
    assert certain(last.response) == certain(transport.infer(SCENE, request_, RequestContext()).response)
    assert "".join(event.text_delta for event in events) == last.response.text
    assert [event.detection for event in events if event.HasField("detection")] == list(
        last.response.detections.detections
    )
    assert {event.WhichOneof("event") for event in events} <= {"text_delta", "detection"}


def test_a_stream_begins_before_its_answer_is_complete(transport):
    request = TaskRequest(caption={}, generation=LONG)
    with closing(transport.stream(SCENE, request, RequestContext())) as events:
        assert next(events).event.text_delta
        assert transport.engine.statistics.running == 1
    assert_idle(transport)


def test_closing_an_awaited_stream_frees_its_slots(transport):
    async def begin() -> None:
        events = transport.stream_async(SCENE, task_list(CAPTION, CAPTION, generation=LONG), RequestContext())
        async for reply in events:
            if reply.event.text_delta:
                break
        await events.aclose()

    asyncio.run(begin())
    assert_idle(transport)


def test_the_events_of_a_plan_are_those_of_its_steps(stream, transport):
    request = task_list(CAPTION, TaskRequest(region_analysis={"max_regions": 2}), OUTSIDE)
    *events, last = stream(request)
    assert certain(last.response) == certain(transport.infer(SCENE, request, RequestContext()).response)
    by_step = {}
    for event in events:
        by_step.setdefault(event.step, []).append(event)
    assert sorted(by_step) == [0, 1, 2, 3, 4]
    for started, *between, ended in by_step.values():
        assert ended.step_response.request == started.step_started.request
        text = "".join(event.text_delta for event in between)
        assert text == ended.step_response.response.text
    analysis = last.response.steps[1].response.steps
    ended = [by_step[number][-1].step_response for number in (1, 3, 4)]
    assert sorted(ended, key=lambda step: (step.HasField("item"), step.item)) == list(analysis)
    assert by_step[2][-1].step_response.error.message.startswith("region_to_category.region")


def test_the_last_event_of_a_request_that_fails_is_its_error(stream):
    (event,) = stream(OUTSIDE)
    assert event.error.status == "INVALID_ARGUMENT"
    assert event.error.message.startswith("region_to_category.region")


def test_the_deadline_of_a_stream_is_kept(stream, transport):
    with pytest.raises(DeadlineExceededError, match=r"after 0\.3 s"):
        stream(TaskRequest(caption={}, generation=LONG), RequestContext(timeout=0.3))
    assert_idle(transport)


def test_closing_the_transport_ends_a_task_list():
    transport = InProcess(DEMO_CHECKPOINT, device="cpu", slots=1)
    events = transport.stream(SCENE, task_list(CAPTION, CAPTION, generation=LONG), RequestContext())
    while not next(events).event.text_delta:
        pass
    transport.close()
    *_, last = events
    assert (last.event.error.status, last.event.error.message) == ("CANCELLED", "the transport was closed")
    with pytest.raises(RequestCancelledError):
        transport.infer(SCENE, task_list(CAPTION), RequestContext())


def test_it_is_a_transport_that_streams(transport):
    assert isinstance(transport, StreamingTransport)
    assert isinstance(transport, AsyncStreamingTransport)
