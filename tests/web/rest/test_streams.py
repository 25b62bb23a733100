"""The server-sent events of the REST API."""

import asyncio
import json
import logging

from florence2.errors import UnavailableError
from florence2.testing import MockTransport

from tests.web.conftest import respond
from tests.web.rest.calls import DOG, TEXT_IMAGE, events_of, form, refused


def test_a_stream_sends_what_is_found_and_ends_with_the_answer(client):
    response = client.post("/v1/detect", json={"image": TEXT_IMAGE, "stream": True})
    events = events_of(response)
    assert [name for name, _ in events] == ["text_delta"] * 4 + ["item_found", "finished"]
    assert "".join(data["text"] for name, data in events if name == "text_delta") == DOG
    answer = client.post("/v1/detect", json={"image": TEXT_IMAGE}).json()
    assert events[-1][1] == answer | {"request_id": events[-1][1]["request_id"]}
    assert events[-2][1] == {"step": 0, "item": answer["result"]["items"][0]}


def test_accept_asks_for_a_stream_unless_the_body_says_otherwise(client):
    accept = {"Accept": "text/event-stream"}
    body = {"image": TEXT_IMAGE}
    assert events_of(client.post("/v1/detect", json=body, headers=accept))
    assert client.post("/v1/detect", json=body | {"stream": False}, headers=accept).json()["result"]


def test_a_stream_of_a_cascade_says_which_step_each_event_belongs_to(client):
    events = events_of(form(client, "analyze-regions", {"stream": "true"}))
    started = [data for name, data in events if name == "step_started"]
    assert started == [
        {"step": 0, "task": "object_detection"},
        {"step": 1, "task": "region_to_description", "item": 0},
    ]
    finished = [data for name, data in events if name == "step_finished"]
    assert finished[1]["result"]["text"] == "A dog."
    assert events[-1][1]["result"]["regions"][0]["result"]["text"] == "A dog."


def test_filters_apply_to_the_items_of_a_stream(client):
    events = events_of(form(client, "detect", {"stream": "true", "labels": ["cat", "bird"]}))
    assert "item_found" not in dict(events)
    assert events[-1][1]["result"]["items"] == []


def test_an_error_in_a_stream_is_a_response_before_the_first_event_and_an_event_after_it(app_client, caplog):
    class Breaking(MockTransport):
        async def stream_async(self, image, request, context):
            async for reply in super().stream_async(image, request, context):
                yield reply
                raise UnavailableError("the server is stopping")

    def fail(*_):
        raise UnavailableError("the server is full")

    assert refused(form(app_client(handler=fail), "detect", {"stream": "true"}), 503)
    with caplog.at_level(logging.INFO, "florence2.web.access"):
        response = form(app_client(transport=Breaking(respond)), "detect", {"stream": "true"})
    (first, _), (last, problem) = events_of(response)
    assert "the server is stopping" in caplog.text, "the access log has it beside status 200"
    assert (first, last, problem["status"]) == ("text_delta", "error", 503)


def test_scores_that_are_unknown_cannot_be_filtered_in_a_stream_either(client):
    events = events_of(form(client, "detect", {"stream": "true", "min_score": "0.5"}))
    assert events[-1][0] == "error"
    assert refused(form(client, "detect", {"min_score": "0.5"}))["detail"] == events[-1][1]["detail"]


def test_leaving_a_stream_closes_the_request(app_client):
    closed = []

    class Endless(MockTransport):
        async def stream_async(self, image, request, context):
            try:
                async for reply in super().stream_async(image, request, context):
                    yield reply
                    await asyncio.Event().wait()
            finally:
                closed.append(True)

    app = app_client(transport=Endless(respond)).app
    body = json.dumps({"image": TEXT_IMAGE, "stream": True}).encode()

    async def leave():
        has_event, requested = asyncio.Event(), asyncio.Event()

        async def receive():
            if not requested.is_set():
                requested.set()
                return {"type": "http.request", "body": body}
            await has_event.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message.get("body"):
                has_event.set()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/detect", "headers": headers, "query_string": b""}
        await asyncio.wait_for(app(scope | {"server": ("localhost", 80), "scheme": "http"}, receive, send), 30)

    asyncio.run(leave())
    assert closed == [True]
