"""Which task answers a chat: a token in the text, the model id, or a free prompt; and with which input."""

import pytest
from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.options import GENERATION_OPTIONS
from florence2.tasks import TASKS
from florence2.web.openai.chat_request import read_chat
from florence2.web.openai.fields import IGNORED, REFUSED, USED
from florence2.web.openai.model_ids import ModelId, parse_model_id
from florence2.web.openai.task_choice import NAMED_TASKS

from tests.conftest import ROOT
from tests.web.chats import chat, data_uri, image_part, message

REGION = v1.BoundingBox(x_min=1, y_min=2.5, x_max=30, y_max=40)


def request_of(text: str, model: str = "florence2", **fields) -> v1.TaskRequest:
    return read_chat(chat(text, model, **fields), ["florence2"]).request


def refusal(body: object) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as raised:
        read_chat(body, ["florence2"])
    return raised.value


@pytest.mark.parametrize("task", [task for task in TASKS if task.token and not task.takes_region], ids=lambda t: t.name)
def test_a_token_that_begins_the_text_chooses_the_task(task):
    text = f"{task.token}a dog" if task.input else task.token
    assert request_of(f" {text}\n", "florence2:read-text").free_prompt.text == text


def test_the_model_id_chooses_the_task_of_a_text_without_a_token():
    assert request_of("a dog", "florence2:ground").phrase_grounding.caption == "a dog"
    assert request_of("a dog", "florence2:segment").referring_expression_segmentation.expression == "a dog"
    assert request_of("a dog", "florence2:detect-open-vocabulary").open_vocabulary_detection.query == "a dog"
    assert request_of("a dog", "florence2:generate").free_prompt.text == "a dog"


def test_the_text_is_ignored_if_the_task_takes_none():
    assert request_of("What is this?", "florence2:detect").HasField("object_detection")


def test_a_text_without_any_choice_is_a_free_prompt():
    assert request_of(" What is <OD>? ").free_prompt.text == "What is <OD>?"


@pytest.mark.parametrize("text", ["1,2.5,30,40", "[1, 2.5, 3e1, 40]", "(1 2.5 30 40)"])
@pytest.mark.parametrize("prefix", ["", "<REGION_TO_OCR>"])
def test_a_region_is_a_box_in_pixels(text, prefix):
    model = "florence2" if prefix else "florence2:read-region"
    assert request_of(prefix + text, model).region_to_ocr.region == REGION


def test_a_region_may_be_four_location_tokens():
    tokens = "<loc_1><loc_2><loc_3><loc_4>"
    expected = f"<REGION_TO_CATEGORY>{tokens}"
    assert request_of(tokens.replace("><", "> <"), "florence2:classify-region").free_prompt.text == expected
    assert request_of(f"<REGION_TO_CATEGORY>{tokens}").free_prompt.text == expected


@pytest.mark.parametrize("text", ["", "1,2,3", "the dog", "1,2,3,4,5", "nan,1,2,3"])
def test_a_region_that_is_neither_is_refused(text):
    assert refusal(chat(text, "florence2:segment-region")).field == "messages"
    assert refusal(chat(f"<REGION_TO_SEGMENTATION>{text}")).field == "messages"


def test_other_inputs_are_fields_of_the_body():
    assert request_of("", "florence2:caption", detail="paragraph").HasField("more_detailed_caption")
    assert request_of("", "florence2:segment-region", region=[1, 2.5, 30, 40]).region_to_segmentation.region == REGION
    assert request_of("hi", "florence2:ground", caption=["a dog", "a cat"]).phrase_grounding.phrases == [
        "a dog",
        "a cat",
    ]
    analysis = request_of("", "florence2:analyze-regions", region_task="text", max_regions=3).region_analysis
    assert (analysis.region_task, analysis.max_regions) == (v1.RegionTask.REGION_TASK_TEXT, 3)


@pytest.mark.parametrize(
    ("text", "model", "fields", "field"),
    [
        ("", "florence2", {}, "messages"),
        ("  ", "florence2:ground", {}, "messages"),
        ("<OD>dogs", "florence2", {}, "messages"),
        ("3,2,1,0", "florence2:read-region", {}, "messages"),
        ("", "florence2:read-region", {"region": [3, 2, 1, 0]}, "region"),
        ("", "florence2:ground", {"caption": ["a dog", " "]}, "caption"),
        ("", "florence2:caption", {"detail": "long"}, "detail"),
        ("", "florence2:detect", {"detail": "brief"}, "detail"),
        ("<CAPTION>", "florence2:caption", {"detail": "brief"}, "detail"),
        ("", "florence2:analyze-regions", {"max_regions": "three"}, "max_regions"),
        ("<OD>", "florence2", {"num_beams": 9}, "num_beams"),
        ("<OD>", "florence2", {"num_beams": "three"}, "num_beams"),
        ("<OD>", "florence2", {"max_tokens": 0}, "max_tokens"),
        ("<OD>", "florence2", {"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ("<OD>", "florence2", {"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ("<CAPTION>", "florence2", {"min_score": 0.5}, "min_score"),
        ("<CAPTION>", "florence2", {"response_format": {"type": "json_object"}}, "response_format.type"),
        ("<OD>", "florence2", {"response_format": {"type": "json_schema"}}, "response_format.type"),
        ("<OD>", "florence2", {"stream": "yes"}, "stream"),
        ("<OD>", "florence2", {"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_an_error_names_the_field_of_the_body(text, model, fields, field):
    error = refusal(chat(text, model, **fields))
    assert error.field == field
    assert str(error).startswith(f"{field}: got ")


def test_an_unknown_field_names_the_nearest():
    assert "num_beams" in str(refusal(chat("<OD>", num_beam=3)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("stop", ["\n"]),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"1": 5}),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("store", True),
    ],
)
def test_a_field_that_promises_what_cannot_be_kept_is_refused_unless_it_is_null(field, value):
    assert refusal(chat("<OD>", **{field: value})).field == field
    assert read_chat(chat("<OD>", **{field: None}), ["florence2"])


def test_fields_that_cannot_change_the_answer_are_ignored():
    harmless = {"n": 1, "stop": [], "logprobs": False, "tools": [], "tool_choice": "auto", "store": False}
    ignored = {"temperature": 0.7, "top_p": 1, "seed": 7, "user": "me", "metadata": {"a": "b"}, "service_tier": "auto"}
    assert (
        read_chat(chat("<OD>", max_tokens=None, **harmless, **ignored), ["florence2"]).request.free_prompt.text
        == "<OD>"
    )


def test_options_reach_the_request():
    read = read_chat(
        chat("<OD>", "florence2@invoices", max_tokens=9, num_beams=2, priority=1, min_score=0.5), ["florence2"]
    )
    assert (read.request.adapter, read.request.generation.max_new_tokens) == ("invoices", 9)
    assert read.request.generation.num_beams == 2
    assert read.options == {"priority": 1, "min_score": 0.5}


def test_the_last_message_asks_and_the_last_image_is_meant():
    first, second = data_uri(b"first"), data_uri(b"second")
    messages = [
        {"role": "system", "content": "You are helpful."},
        message("<OD>", first),
        {"role": "assistant", "content": "{}"},
        message("<OCR>", second),
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "<CAPTION>"},
    ]
    read = read_chat({"model": "florence2", "messages": messages}, ["florence2"])
    assert read.request.free_prompt.text == "<CAPTION>"
    assert read.image == (second.encode(), "messages[3].content[1].image_url.url")


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        (None, "messages"),
        ([], "messages"),
        ("<OD>", "messages"),
        ([{"content": "<OD>"}], "messages[0]"),
        ([{"role": "system", "content": "<OD>"}], "messages"),
        ([{"role": "user", "content": "<OD>"}], "messages"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": ["<OD>"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].image_url"),
        ([{"role": "user", "content": [image_part(7)]}], "messages[0].content[0].image_url.url"),
        ([message("<OD>", "data:,a", "data:,b")], "messages[0].content[2].image_url.url"),
    ],
)
def test_messages_without_exactly_one_image_and_a_text_are_refused(messages, field):
    assert refusal({"model": "florence2", "messages": messages}).field == field


@pytest.mark.parametrize("body", [None, [], "chat", 7])
def test_a_body_that_is_no_object_is_refused(body):
    assert refusal(body).field == "body"


@pytest.mark.parametrize(
    "parts", [("florence2",), ("florence2", "detect"), ("florence2", None, "a.b"), ("florence2", "read-text", "a")]
)
def test_a_model_id_is_written_as_it_is_read(parts):
    model = ModelId(*parts)
    assert parse_model_id(str(model), ["florence2"], list(NAMED_TASKS)) == model


def test_a_model_whose_name_has_a_colon_is_found():
    assert parse_model_id("a:b:detect", ["a", "a:b"], ["detect"]) == ModelId("a:b", "detect")


@pytest.mark.parametrize(
    "text", ["", "gpt-4o", "florence2x", "florence2:nope", "florence2:", "florence2@", "florence2@a b"]
)
def test_an_unknown_model_id_is_refused_with_those_possible(text):
    error = refusal(chat("<OD>", text))
    assert error.field == "model"
    assert "expected" in str(error)


def test_every_task_and_cascade_has_a_name():
    assert {task.client_method for task in TASKS} <= {name.replace("-", "_") for name in NAMED_TASKS}
    assert {"ground-caption", "analyze-regions"} <= NAMED_TASKS.keys()


def test_the_page_about_this_api_names_all_tasks_and_fields():
    page = (ROOT / "docs" / "openai.md").read_text()
    own = {name for name in USED if name not in GENERATION_OPTIONS}
    for name in [*NAMED_TASKS, *IGNORED, *REFUSED, *own]:
        assert f"`{name}" in page, name
