"""The form of chat completions, streams, errors and models, over a mock of the server."""

import asyncio
import json
from collections import defaultdict

import pytest
from florence2 import AsyncClient, v1
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidArgumentError,
    ServerError,
    UnavailableError,
)
from florence2.parsing import decode
from florence2.tasks import TASKS, task_named
from florence2.testing import MockTransport, task_response
from florence2.transports.protocol import StreamReply
from florence2.web.app import make_app
from florence2.web.config import WebConfig
from florence2.web.models import Models
from florence2.web.openai.growing_text import GrowingText

from tests.web.chats import PATH, chat, chunks, content, data_uri, error, image_part, streamed_content
from tests.web.conftest import IMAGE_SIZE, picture

CAPTION = "</s><s>A dog, a cat & <3.</s>"
DOG = "dog<loc_100><loc_200><loc_300><loc_400>"


def answering(text: str, **options):
    """A handler whose responses have this text, 12 prompt tokens and 5 generated ones."""

    def respond(image, request):  # noqa: ARG001
        response = task_response(text, IMAGE_SIZE, **options)
        response.usage.prompt_tokens, response.usage.generated_tokens = 12, 5
        return response

    return respond


def test_a_text_is_the_content(app_client):
    response = app_client(handler=answering(CAPTION)).post(
        PATH, json=chat("<CAPTION>"), headers={"X-Request-ID": "abc"}
    )
    body = response.json()
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": "chatcmpl-abc",
        "object": "chat.completion",
        "model": "florence2",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A dog, a cat & <3.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    }


def test_any_other_result_is_json(app_client):
    client = app_client(handler=answering(DOG))
    found = json.loads(content(client.post(PATH, json=chat("<OD>"))))
    assert [item["label"] for item in found["items"]] == ["dog"]
    assert found == json.loads(streamed_content(chunks(client.post(PATH, json=chat("<OD>", stream=True)))))
    filtered = content(client.post(PATH, json=chat("", "florence2:detect", labels=["cat"])))
    assert json.loads(filtered)["items"] == []


def test_a_cascade_is_json(app_client):
    found = json.loads(
        content(app_client(handler=answering(DOG)).post(PATH, json=chat("", "florence2:ground-caption")))
    )
    assert found["caption"]["text"].startswith("dog")


def test_a_truncated_answer_says_so(app_client):
    client = app_client(handler=answering("A dog and", is_truncated=True))
    assert client.post(PATH, json=chat("<CAPTION>")).json()["choices"][0]["finish_reason"] == "length"
    *_, last = chunks(client.post(PATH, json=chat("<CAPTION>", stream=True)))
    assert last["choices"][0]["finish_reason"] == "length"


def test_a_text_streams_in_pieces_without_special_tokens(app_client):
    response = app_client(handler=answering(CAPTION)).post(
        PATH, json=chat("<CAPTION>", stream=True, stream_options={"include_usage": True})
    )
    first, *pieces, last, usage = chunks(response)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(pieces) > 1
    assert streamed_content(pieces) == "A dog, a cat & <3."
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 17)
    assert {each["object"] for each in (first, *pieces, last, usage)} == {"chat.completion.chunk"}
    assert len({each["id"] for each in (first, *pieces, last, usage)}) == 1
    assert response.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("token", ["<CAPTION>", "<REGION_TO_OCR>"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "text", [CAPTION, "</s><s>a <b> c< d<s></s>", " a<loc_1><loc_2> b <", "<pad>", "", "é\n\nè </s>"]
)
def test_the_pieces_of_a_growing_text_are_the_text_of_the_result(token, size, text):
    task = task_named(token)
    growing = GrowingText(task)
    shown = "".join(growing.feed(text[start : start + size]) for start in range(0, len(text), size))
    result = decode(task, text, (1, 1)).text
    assert result.startswith(shown)
    assert shown + growing.finish(result) == result


class Stumbling(MockTransport):
    """Streams a piece of text, and then fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__(answering(CAPTION))
        self.error = error

    async def stream_async(self, image, request, context):  # noqa: ARG002
        yield StreamReply(v1.StreamEvent(text_delta="A dog"))
        raise self.error


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (UnavailableError("the engine restarts"), "the engine restarts"),
        (ServerError("a secret"), "the Triton server failed"),
        (ValueError("a secret"), "an unexpected error"),
    ],
)
def test_an_error_in_the_middle_of_a_stream_is_its_last_event(app_client, cause, expected):
    response = app_client(transport=Stumbling(cause)).post(PATH, json=chat("<CAPTION>", stream=True))
    *before, last = chunks(response)
    assert streamed_content(before) == "A dog"
    assert expected in last["error"]["message"]
    assert "secret" not in response.text
    assert "[DONE]" not in response.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("cause", "status", "retry"),
    [
        (UnavailableError("the queue is full"), 503, "true"),
        (DeadlineExceededError("too late"), 504, "false"),
        (ServerError("broken"), 502, "false"),
        (AccessDeniedError("no token"), 502, "false"),
    ],
)
def test_errors_of_the_server_have_their_status_also_before_a_stream(app_client, cause, status, retry, stream):
    def fail(image, request):  # noqa: ARG001
        raise cause

    response = app_client(handler=fail).post(PATH, json=chat("<CAPTION>", stream=stream))
    assert response.status_code == status
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["X-Should-Retry"] == retry
    assert ("Retry-After" in response.headers) == (status == 503)


def test_the_server_s_refusals_name_the_field_of_the_body(app_client):
    def refuse(image, request):  # noqa: ARG001
        field = "adapter" if request.adapter else "generation.max_new_tokens"
        raise InvalidArgumentError.of_field(field, 5000, "1 to 1024")

    client = app_client(handler=refuse)
    status, param, text = error(client.post(PATH, json=chat("<OD>", max_completion_tokens=5000)))
    assert (status, param) == (400, "max_completion_tokens")
    assert text.startswith("max_completion_tokens: got 5000, expected 1 to 1024")
    assert error(client.post(PATH, json=chat("<OD>", "florence2@nope")))[:2] == (404, "model")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://example.com/a.png", "URLs are not fetched"),
        ("data:image/png;base64,AAAA", "an image file"),
        ("data:image/png;base64,", "an image file"),
        ("file:///etc/passwd", "URLs are not fetched"),
    ],
)
def test_an_image_that_is_none_is_refused_at_its_place(app_client, url, words):
    body = chat("<OD>")
    body["messages"][0]["content"][1] = image_part(url)
    status, param, text = error(app_client().post(PATH, json=body))
    assert (status, param) == (400, "messages[0].content[1].image_url.url")
    assert words in text


def test_an_image_with_too_many_pixels_is_refused(app_client):
    assert error(app_client(max_image_pixels=100).post(PATH, json=chat("<OD>")))[:2] == (
        400,
        "messages[0].content[1].image_url.url",
    )


@pytest.mark.parametrize("url", [data_uri(media_type="image/jpeg"), data_uri().partition(",")[2]])
def test_a_wrong_media_type_and_bare_base64_are_accepted(app_client, url):
    seen = []

    def respond(image, request):  # noqa: ARG001
        seen.append(image)
        return task_response("A dog.", IMAGE_SIZE)

    body = chat("<CAPTION>")
    body["messages"][0]["content"][1] = {"type": "image_url", "image_url": url}
    assert content(app_client(handler=respond).post(PATH, json=body)) == "A dog."
    assert seen == [picture()]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"n": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
    ],
)
def test_a_body_that_is_not_json_is_refused(app_client, body, content_type, status):
    response = app_client().post(PATH, content=body, headers={"Content-Type": content_type})
    assert error(response)[0] == status


def test_paths_and_methods_that_do_not_exist_have_openais_errors(app_client):
    client = app_client()
    assert error(client.get(PATH))[0] == 405
    assert error(client.post("/v1/chat/nothing"))[0] == 404


class Hanging(MockTransport):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__(answering(CAPTION))
        self.started, self.ends = asyncio.Event(), defaultdict(int)

    async def infer_async(self, image, request, context):  # noqa: ARG002
        try:
            self.started.set()
            await asyncio.Event().wait()
        finally:
            self.ends["infer"] += 1

    async def stream_async(self, image, request, context):  # noqa: ARG002
        try:
            yield StreamReply(v1.StreamEvent(text_delta="A"))
            self.started.set()
            await asyncio.Event().wait()
        finally:
            self.ends["stream"] += 1


@pytest.mark.parametrize(("stream", "kind"), [(False, "infer"), (True, "stream")])
def test_a_caller_that_leaves_cancels_the_request(stream, kind):
    async def leave() -> dict[str, int]:
        transport = Hanging()
        app = make_app(WebConfig(), Models({"florence2": AsyncClient(transport=transport)}))
        bodies = [{"type": "http.request", "body": json.dumps(chat("<CAPTION>", stream=stream)).encode()}]

        async def receive():
            if bodies:
                return bodies.pop()
            await transport.started.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "query_string": b""}
        await asyncio.wait_for(app({**scope, "http_version": "1.1"}, receive, send), 60)
        return transport.ends

    assert asyncio.run(leave()) == {kind: 1}


def test_all_text_tasks_stream(app_client):
    client = app_client(handler=answering("</s><s>A dog.</s>"))
    for task in TASKS:
        text = f"{task.token}1,2,30,40" if task.takes_region else f"{task.token}{'a dog' if task.input else ''}"
        assert streamed_content(chunks(client.post(PATH, json=chat(text, stream=True))))
