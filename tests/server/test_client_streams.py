"""Streams of the florence2 clients from a real server."""

import asyncio
import io

import pytest
from florence2 import AsyncClient, Client, Finished, ItemFound, StepFinished, TextDelta, v1
from florence2.client import AsyncEventStream
from florence2.errors import InvalidArgumentError, ModelNotFoundError

from tests.server.conftest import CALL_SECONDS
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

CAPTION = v1.TaskRequest(caption={})
REQUESTS = [
    CAPTION,
    v1.TaskRequest(object_detection={}),
    v1.TaskRequest(ocr_with_region={}, generation={"num_beams": 3}),
    v1.TaskRequest(caption_grounding={}),
    v1.TaskRequest(region_analysis={"region_task": v1.RegionTask.REGION_TASK_SEGMENTATION}),
    v1.TaskRequest(task_list={"tasks": [{"ocr": {}}, {"object_detection": {}}]}),
]


@pytest.fixture(scope="module")
def picture() -> bytes:
    file = io.BytesIO()
    draw(sample_scene(31)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(params=[Client, AsyncClient])
def stream(request, server):
    """`stream(image, request, **settings)`: all events, from either client."""

    async def stream(image, message, **settings):
        client = request.param(server.grpc_url, timeout=CALL_SECONDS, retry=None, **settings)
        events = client.stream(image, message)
        try:
            return [event async for event in events] if isinstance(events, AsyncEventStream) else list(events)
        finally:
            if isinstance(client, AsyncClient):
                await client.close()
            else:
                client.close()

    return lambda *arguments, **settings: asyncio.run(stream(*arguments, **settings))


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: message.WhichOneof("task"))
def test_a_stream_has_the_texts_and_items_of_the_answer_of_run(server, picture, stream, message):
    with Client(server.grpc_url) as client:
        unary = client.run(picture, message)
    *events, finished = stream(picture, message)
    assert isinstance(finished, Finished)
    assert texts(finished.answer) == texts(unary)
    ends = {event.step: event.answer.outcome for event in events if isinstance(event, StepFinished)}
    assert len(ends) == len(unary.steps)
    for step, answer in (ends or {0: unary}).items():
        deltas = [each.text for each in events if isinstance(each, TextDelta) and each.step == step]
        assert "".join(deltas) == answer.text
        items = [each.item.label for each in events if isinstance(each, ItemFound) and each.step == step]
        assert items == (answer.result.labels if has_items(answer.result) else [])


def texts(answer):
    """The generated texts of an answer, in the order of its steps."""
    return [answer.text, *(step.outcome.text for step in answer.steps)]


def has_items(result):
    """Whether a result consists of detections or text regions, which are streamed one by one."""
    return hasattr(result, "boxes") or hasattr(result, "quads")


def test_a_stream_of_junk_fails_like_a_request(stream):
    with pytest.raises(InvalidArgumentError, match=r"^IMAGE: got ") as caught:
        stream(b"junk", CAPTION)
    assert caught.value.field == "IMAGE"
    assert caught.value.request_id
    assert caught.value.url


def test_a_model_without_streams_is_named(stream, picture):
    with pytest.raises(ModelNotFoundError, match="florence3_stream"):
        stream(picture, CAPTION, model="florence3")
