"""A stream of a detection as a server sends it, and fixtures that read streams of both clients.

A test module loads the fixtures with `pytest_plugins = ["tests.client.fake_server", "tests.client.streams"]`.
PYTEST_DONT_REWRITE: by then the module has imported it, and pytest would warn that it can rewrite no assert here.
"""

import pytest
from florence2 import v1
from florence2.client import AsyncEventStream

from tests.client.fake_server import task_response

IMAGE = b"an encoded image"
DETECTION = v1.TaskRequest(object_detection={})
CAPTION = v1.TaskRequest(caption={})
TEXTS = ["</s><s>dog", "<loc_100><loc_200><loc_300>", "<loc_400></s>"]
RESPONSE = v1.TaskResponse.FromString(task_response("".join(TEXTS)))
DELTAS = [v1.StreamEvent(text_delta=text) for text in TEXTS]
BOX = {"x_min": 100.5, "y_min": 100.25, "x_max": 300.5, "y_max": 200.25}
ITEM = v1.StreamEvent(detection={"label": "dog", "bounding_box": BOX, "score": 0.5})
END = v1.StreamEvent(response=RESPONSE)
STREAM = [DELTAS[0], DELTAS[1], ITEM, DELTAS[2], END]


def failure(status, message):
    return v1.StreamEvent(error={"status": status, "message": message})


async def collect(stream):
    """The events of a stream of either client, and the error that ended it, if any."""
    events = []
    try:
        if isinstance(stream, AsyncEventStream):
            async for event in stream:
                events.append(event)  # noqa: PERF401 - keeps those before an error
        else:
            for event in stream:
                events.append(event)  # noqa: PERF402
    except Exception as error:  # noqa: BLE001 - returned
        return events, error
    return events, None


@pytest.fixture
def stream(use):
    """`stream(request, keywords, **settings)`: the events, and the error that ended them."""

    def stream(request=DETECTION, keywords=None, **settings):
        return use(lambda client: collect(client.stream(IMAGE, request, **(keywords or {}))), **settings)

    return stream


@pytest.fixture
def events(stream):
    """`events(...)`: the events of a stream that must not fail."""

    def events(*arguments, **settings):
        found, error = stream(*arguments, **settings)
        assert error is None, error
        return found

    return events


@pytest.fixture
def error(stream):
    """`error(...)`: why a stream failed."""

    def error(*arguments, **settings):
        _, found = stream(*arguments, **settings)
        assert found is not None
        return found

    return error


async def next_event(stream):
    return await anext(stream) if isinstance(stream, AsyncEventStream) else next(stream)
