"""OpenAI's own client, in front of `florence2 web` and the real server."""

import asyncio
import base64
import json

import pytest

pytest.importorskip("openai", reason="make test-web installs it")

import openai
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conftest import EXAMPLE_SCENE, ROOT
from tests.docs.programs import is_same, run_page, shown_outputs
from tests.web.chats import message
from tests.web.conftest import web_process

pytestmark = pytest.mark.web

SHAPES = ["red circle", "green triangle", "blue square"]
SCENE = f"data:image/png;base64,{base64.b64encode(EXAMPLE_SCENE.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def client(door_url):
    """OpenAI's client, without retries, so that an error is the first one."""
    with openai.OpenAI(base_url=f"{door_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def create(client, text: str, model: str = "florence2", **fields):
    """A completion about the example scene."""
    return client.chat.completions.create(model=model, messages=[message(text, SCENE)], **fields)


def test_a_token_in_the_text_detects(client):
    completion = create(client, "<OD>")
    found = json.loads(completion.choices[0].message.content)
    assert [item["label"] for item in found["items"]] == SHAPES
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.completion_tokens > 10


def test_a_task_in_the_model_id_reads(client):
    text = create(client, "What does it say?", "florence2:read-text", max_tokens=50, temperature=0.2, user="me")
    assert {"CAFE", "OPEN"} <= set(text.choices[0].message.content.split())


def test_a_region_of_one_task_is_the_answer_of_another(client):
    item = json.loads(create(client, "", "florence2:detect").choices[0].message.content)["items"][0]
    box = ", ".join(map(str, item["box"]))
    described = create(client, box, "florence2:classify-region").choices[0].message.content
    assert described in item["label"] or item["label"] in described


def test_our_own_options_are_in_the_extra_body(client):
    own = {"num_beams": 1, "detail": "paragraph", "max_new_tokens": 2}
    completion = create(client, "", "florence2:caption", extra_body=own)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 2


def test_a_streamed_text_is_that_of_a_completion(client):
    whole = create(client, "<CAPTION>")
    with create(client, "<CAPTION>", stream=True, stream_options={"include_usage": True}) as stream:
        *pieces, last = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in pieces) == whole.choices[0].message.content
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert last.usage == whole.usage


def test_the_accumulating_stream_of_the_package_works(client):
    messages = [message("<OD>", SCENE)]
    with client.chat.completions.stream(model="florence2", messages=messages) as stream:
        stream.until_done()
    content = stream.get_final_completion().choices[0].message.content
    assert [item["label"] for item in json.loads(content)["items"]] == SHAPES


def test_the_asynchronous_client_answers_and_streams(door_url):
    async def ask() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{door_url}/v1", api_key="unused", max_retries=0) as client:
            whole, stream = await asyncio.gather(create(client, "<OCR>"), create(client, "<OCR>", stream=True))
            return whole.choices[0].message.content, "".join(
                [each.choices[0].delta.content or "" async for each in stream]
            )

    whole, streamed = asyncio.run(ask())
    assert whole == streamed


def test_responses_have_the_form_of_the_package_s_types_exactly(client):
    completion = client.chat.completions.with_raw_response.create(model="florence2", messages=[message("<OCR>", SCENE)])
    check_form(ChatCompletion, json.loads(completion.text))
    with client.chat.completions.with_streaming_response.create(
        model="florence2", messages=[message("<OCR>", SCENE)], stream=True, stream_options={"include_usage": True}
    ) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    for line in lines:
        check_form(ChatCompletionChunk, json.loads(line))
    for entry in json.loads(client.models.with_raw_response.list().text)["data"]:
        check_form(Model, entry)


def check_form(kind, value: dict) -> None:
    """Fail unless a value is one of the type without any conversion and without unknown keys."""
    parsed = kind.model_validate(value, strict=True)
    assert unknown(parsed) == []


def unknown(parsed) -> list[str]:
    """The keys of a model, and of those in it, that its type does not have."""
    fields = [getattr(parsed, name) for name in type(parsed).model_fields]
    models = [each for value in fields for each in (value if isinstance(value, list) else [value])]
    return [
        *(parsed.model_extra or {}),
        *(key for each in models if hasattr(each, "model_extra") for key in unknown(each)),
    ]


def test_models_are_listed_and_retrieved(client):
    ids = [model.id for model in client.models.list()]
    assert {"florence2", "florence2:detect", "florence2:read-text"} <= set(ids)
    assert client.models.retrieve("florence2:detect").id == "florence2:detect"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-4o")
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("text", "fields", "param"),
    [
        ("<OD>", {"n": 2}, "n"),
        ("<OD>", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ("<OD>", {"max_tokens": 100_000}, "max_tokens"),
        ("<OD> dogs", {}, "messages"),
        ("<REGION_TO_OCR>1,2,3,4000", {}, "messages"),
        ("<OD>", {"extra_body": {"num_beams": 99}}, "num_beams"),
    ],
)
def test_invalid_requests_are_bad_request_errors_that_name_the_field(client, text, fields, param):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            create(client, text, stream=stream, **fields)
        assert raised.value.param == param
        assert raised.value.type == "invalid_request_error"
        assert raised.value.request_id


def test_a_url_is_not_fetched(client):
    with pytest.raises(openai.BadRequestError, match="URLs are not fetched") as raised:
        client.chat.completions.create(model="florence2", messages=[message("<OD>", "https://example.com/a.png")])
    assert raised.value.param == "messages[0].content[1].image_url.url"


def test_an_unknown_model_or_adapter_is_not_found(client):
    for model in ("gpt-4o", "florence2:nothing", "florence2@nothing"):
        with pytest.raises(openai.NotFoundError) as raised:
            create(client, "<OD>", model)
        assert raised.value.param == "model"


def test_a_deadline_is_an_internal_server_error_that_is_not_retried(client):
    with pytest.raises(openai.InternalServerError) as raised:
        create(client.with_options(max_retries=5), "<OD>", extra_body={"timeout": 0.001})
    assert raised.value.status_code == 504
    assert raised.value.code == "deadline_exceeded"


def test_a_missing_key_is_an_authentication_error_and_a_dead_server_unavailable(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("tests:secret-of-the-tests\n")
    with web_process("--api-keys", keys, "--url", "127.0.0.1:1", "--timeout", 2) as (url, _):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as raised:
                create(client, "<OD>")
            assert raised.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret-of-the-tests", max_retries=0) as client:
            assert "florence2:detect" in [model.id for model in client.models.list()]
            with pytest.raises(openai.InternalServerError) as raised:
                create(client, "<OD>")
            assert raised.value.status_code in (503, 504)


def test_a_caller_that_leaves_a_stream_can_go_on(client):
    with create(client, "<MORE_DETAILED_CAPTION>", stream=True) as stream:
        next(iter(stream))
    assert create(client, "<OCR>").choices[0].finish_reason == "stop"


def test_the_page_about_this_api_prints_what_it_shows(door_url, tmp_path):
    page = ROOT / "docs" / "openai.md"
    printed = run_page(page, {"http://localhost:8080": door_url}, tmp_path)
    for (block, shown), output in zip(shown_outputs(page), printed, strict=True):
        assert is_same(shown or "", output), f"{block}\n{output}"
