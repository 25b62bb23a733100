import inspect
from typing import Unpack, get_args, get_type_hints

import pytest
from florence2 import v1
from florence2.client import AsyncClient, CaptionDetail, Client, TaskOptions
from florence2.errors import InvalidArgumentError
from florence2.parsing import decode
from florence2.prompts import check_request, expand_prompt, render_prompt
from florence2.tasks import FREE_PROMPT, TASKS, task_named, task_of, task_of_field, task_of_prompt
from hypothesis import given
from hypothesis import strategies as st

pytest_plugins = ["tests.client.fake_server"]

OFFICIAL = [task for task in TASKS if task is not FREE_PROMPT]
FIELDS = [field.name for field in v1.TaskRequest.DESCRIPTOR.oneofs_by_name["task"].fields]
TASK_FIELDS = [name for name in FIELDS if name not in ("caption_grounding", "region_analysis", "task_list")]
OF_SEVERAL_STEPS = {"ground_caption", "analyze_regions", "run_tasks"}
OF_SEVERAL_IMAGES = {"map"}
REGION = v1.BoundingBox(x_min=10, y_min=20, x_max=30, y_max=40)
WITH_INPUT = [task for task in OFFICIAL if task.input]
WITHOUT_INPUT = [task for task in TASKS if not task.input]
WITH_TEXT = [task for task in TASKS if task.takes_text]
WITH_SEVERAL = [task for task in TASKS if task.inputs]
WITH_REGION = [task for task in TASKS if task.takes_region]


def by_name(task):
    return task.name


def request_of(task, value=None) -> v1.TaskRequest:
    fields = {} if task.input is None else {task.input: value}
    return v1.TaskRequest(**{task.name: task.message(**fields)})


def test_the_table_has_every_task_of_the_contract_in_its_order():
    assert [task.name for task in TASKS] == TASK_FIELDS
    assert len(WITH_TEXT) + len(WITH_REGION) + len(WITHOUT_INPUT) == len(OFFICIAL) == 15


def test_the_free_prompt_is_the_only_row_without_a_token():
    assert [task for task in TASKS if not task.token] == [FREE_PROMPT] == [task_of_field("free_prompt")]


def task_methods(client_type: type) -> set[str]:
    """The methods of a client that take the keywords of a task."""
    methods = inspect.getmembers(client_type, inspect.isfunction)
    return {name for name, method in methods if get_type_hints(method).get("options") == Unpack[TaskOptions]}


def test_the_methods_in_the_table_are_those_of_the_clients():
    public = {name for name in task_methods(Client) if not name.startswith("_")}
    assert public == {task.client_method for task in TASKS} | OF_SEVERAL_STEPS | OF_SEVERAL_IMAGES
    assert task_methods(AsyncClient) >= public


CAPTIONS = [task.name for task in TASKS if task.client_method == "caption"]
CAPTION_DETAILS = dict(zip(CAPTIONS, get_args(CaptionDetail), strict=True))


def arguments_of(task) -> tuple:
    """Arguments with which the client's method sends the task."""
    if task.client_method == "caption":
        return (CAPTION_DETAILS[task.name],)
    if task.input is None:
        return ()
    return ((1, 2, 3, 4),) if task.takes_region else ("a dog",)


@pytest.mark.parametrize("task", TASKS, ids=by_name)
def test_the_method_of_a_row_sends_its_task_and_returns_its_form_of_answer(server, use, task):
    result = use(lambda client: getattr(client, task.client_method)(b"an image", *arguments_of(task)))
    assert server.last.request.WhichOneof("task") == task.name
    assert type(result) is type(decode(task, "", (10, 10)))


@pytest.mark.parametrize("task", TASKS, ids=by_name)
def test_a_row_agrees_with_its_message(task):
    field = v1.TaskRequest.DESCRIPTOR.fields_by_name[task.name]
    assert field.message_type is task.message.DESCRIPTOR
    inputs = [name for name in (task.input, task.inputs) if name]
    assert [field.name for field in task.message.DESCRIPTOR.fields] == inputs
    assert ("{input}" in task.sentence) == (task.input is not None)


@pytest.mark.parametrize("task", OFFICIAL, ids=by_name)
def test_a_task_is_found_by_token_and_by_message(task):
    assert task_named(task.token) is task_named(task.message()) is task_of(request_of(task)) is task


@pytest.mark.parametrize("name", ["<VQA>", "", "<OD>x", "OD", v1.Prompt(text="<OD>"), v1.ImageSize()])
def test_anything_else_is_the_free_prompt(name):
    assert task_named(name) is FREE_PROMPT


@pytest.mark.parametrize(
    ("request_fields", "token"),
    [
        ({"prompt": "<OD>"}, "<OD>"),
        ({"prompt": "<CAPTION>", "object_detection": {}}, "<OD>"),
        ({"free_prompt": {"text": "<OCR>"}}, "<OCR>"),
        ({"free_prompt": {"text": "<OCR_WITH_REGION>"}}, "<OCR_WITH_REGION>"),
        ({"prompt": "<REGION_TO_OCR><loc_1>"}, "<REGION_TO_OCR>"),
        ({"free_prompt": {"text": "<DocVQA>What?"}}, ""),
        ({"free_prompt": {"text": "what is <OD>"}}, ""),
        ({}, ""),
    ],
)
def test_the_task_of_a_request_is_its_message_or_the_token_its_prompt_begins_with(request_fields, token):
    assert task_of(v1.TaskRequest(**request_fields)) is task_named(token)


# Prompts.


@pytest.mark.parametrize("task", WITHOUT_INPUT, ids=by_name)
def test_a_task_without_input_renders_to_its_token(task):
    assert render_prompt(request_of(task)) == task.token


@pytest.mark.parametrize("task", WITH_TEXT, ids=by_name)
def test_a_task_with_text_renders_to_token_and_text(task):
    assert render_prompt(request_of(task, "a {0} café <OD>")) == f"{task.token}a {{0}} café <OD>"


def test_two_tasks_take_several_inputs():
    assert [(task.name, task.input, task.inputs) for task in WITH_SEVERAL] == [
        ("phrase_grounding", "caption", "phrases"),
        ("open_vocabulary_detection", "query", "queries"),
    ]


@pytest.mark.parametrize("task", WITH_SEVERAL, ids=by_name)
def test_several_inputs_are_rendered_with_the_models_separator(task, processor):
    request = v1.TaskRequest(**{task.name: {task.inputs: ["a car ", "\ta <OD>", "{input}"]}})
    prompt = render_prompt(request)
    assert prompt == f"{task.token}a car<and>a <OD><and>{{input}}"
    (reference,) = processor._construct_prompts(prompt.replace("<OD>", "dog"))
    assert expand_prompt(prompt) == reference.replace("dog", "<OD>")


@pytest.mark.parametrize("task", WITH_TEXT, ids=by_name)
def test_white_space_around_an_input_is_not_rendered(task):
    assert render_prompt(request_of(task, " \n a dog\t")) == f"{task.token}a dog"


@pytest.mark.parametrize("value", [None, "<OD>", v1.ObjectDetection(), b""])
def test_an_object_that_is_not_a_request_is_a_type_error(value):
    for function in (render_prompt, check_request):
        with pytest.raises(TypeError, match=r"^request: got .* expected a TaskRequest"):
            function(value)


def test_an_object_that_is_not_a_prompt_is_a_type_error():
    with pytest.raises(TypeError, match=r"^text: got b'<OD>' of type bytes, expected a str"):
        expand_prompt(b"<OD>")


@pytest.mark.parametrize("task", WITH_REGION, ids=by_name)
def test_a_task_with_a_region_renders_to_token_and_locations(task):
    prompt = render_prompt(request_of(task, REGION), v1.ImageSize(width=100, height=200))
    assert prompt == f"{task.token}<loc_100><loc_100><loc_300><loc_200>"


def test_given_prompts_are_rendered_unchanged():
    request = v1.TaskRequest(prompt=" <OD> ", object_detection={})
    assert render_prompt(request) == " <OD> "
    assert render_prompt(v1.TaskRequest(free_prompt={"text": " Why? "})) == " Why? "


@pytest.mark.parametrize("task", WITH_REGION, ids=by_name)
@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        (None, r"image_size: got None, expected the image's size, which \w+\.region needs"),
        ((20, 200), r"\.region\.x_max: got 30\.0, expected at most 21"),
    ],
)
def test_a_region_needs_an_image_that_contains_it(task, image_size, message):
    with pytest.raises(InvalidArgumentError, match=message):
        render_prompt(request_of(task, REGION), image_size)


@pytest.mark.parametrize("task", WITHOUT_INPUT, ids=by_name)
def test_a_token_without_input_expands_to_the_reference_sentence(task, processor):
    assert [expand_prompt(task.token)] == processor._construct_prompts(task.token)


@pytest.mark.parametrize("task", WITH_INPUT, ids=by_name)
def test_a_token_with_input_expands_to_the_reference_sentence(task, processor):
    @given(st.text(st.characters(exclude_characters="<")).filter(str.strip) | st.just(" {input} {0} {"))
    def compare(value):
        assert [expand_prompt(task.token + value)] == processor._construct_prompts(task.token + value)

    compare()


@pytest.mark.parametrize("prompt", ["", "Why?", "<DocVQA>What?", "  <OD>", "see <OD>", "<od>", "OD"])
def test_other_prompts_are_unchanged(prompt):
    assert task_of_prompt(prompt) is FREE_PROMPT
    assert expand_prompt(prompt) == prompt


def test_a_token_inside_a_caption_is_text_unlike_for_the_reference(processor):
    prompt = "<CAPTION_TO_PHRASE_GROUNDING>the tag <OD> on a wall"
    assert expand_prompt(prompt) == "Locate the phrases in the caption: the tag <OD> on a wall"
    with pytest.raises(ValueError, match="should be the only content"):
        processor._construct_prompts(prompt)


@pytest.mark.parametrize("task", WITHOUT_INPUT, ids=by_name)
def test_a_task_without_input_takes_none(task):
    with pytest.raises(InvalidArgumentError, match=f"prompt: .* expected nothing after {task.token}"):
        expand_prompt(f"{task.token} car")


@pytest.mark.parametrize("task", WITH_INPUT, ids=by_name)
def test_a_task_with_input_needs_it(task):
    with pytest.raises(InvalidArgumentError, match=f"prompt: .* expected the {task.input} after {task.token}"):
        expand_prompt(f"{task.token} \n")


# Checks.


@pytest.mark.parametrize("task", TASKS, ids=by_name)
def test_a_valid_request_of_every_task_passes(task):
    request = request_of(task, REGION if task.takes_region else "a dog")
    request.generation.CopyFrom(
        v1.GenerationOptions(
            max_new_tokens=1,
            min_new_tokens=1,
            num_beams=8,
            length_penalty=-10,
            early_stopping=v1.EarlyStopping.EARLY_STOPPING_NEVER,
            no_repeat_ngram_size=0,
            repetition_penalty=0.1,
            suppress_bos=True,
        )
    )
    check_request(request)


def test_the_fields_of_the_task_message_are_not_checked_if_there_is_a_prompt():
    check_request(v1.TaskRequest(prompt="<OD>", phrase_grounding={}))


@pytest.mark.parametrize(
    ("request_fields", "message"),
    [
        ({}, "task: got None, expected a task or a prompt"),
        ({"prompt": " \n"}, "prompt: .* not empty"),
        ({"prompt": "<OD>car"}, "prompt: got '<OD>car', expected nothing after <OD>"),
        ({"free_prompt": {"text": " "}}, r"free_prompt\.text: got ' ', expected .* not empty"),
        ({"free_prompt": {"text": "<REGION_TO_OCR>"}}, r"free_prompt\.text: .* expected the region"),
        ({"phrase_grounding": {}}, r"phrase_grounding\.caption: got '', expected a caption .* not empty"),
        (
            {"referring_expression_segmentation": {"expression": "\t"}},
            r"referring_expression_segmentation\.expression: got '\\t'",
        ),
        ({"open_vocabulary_detection": {"query": ""}}, r"open_vocabulary_detection\.query: got ''"),
        ({"phrase_grounding": {"phrases": ["a", " "]}}, r"phrase_grounding\.phrases\[1\]: got ' ', expected text"),
        ({"phrase_grounding": {"phrases": [""]}}, r"phrase_grounding\.phrases\[0\]: got ''"),
        (
            {"phrase_grounding": {"phrases": ["a"], "caption": "b"}},
            r"phrase_grounding\.phrases: got \['a'\], expected either phrases or a caption, not both",
        ),
        (
            {"open_vocabulary_detection": {"queries": ["a"], "query": " "}},
            r"open_vocabulary_detection\.queries: got \['a'\], expected either queries or a query, not both",
        ),
        (
            {"open_vocabulary_detection": {"queries": ["a", "", "b"]}},
            r"open_vocabulary_detection\.queries\[1\]: got ''",
        ),
        ({"region_to_ocr": {}}, r"region_to_ocr\.region: got None, expected a bounding box"),
        ({"region_to_ocr": {"region": {"x_max": 1}}}, r"region_to_ocr\.region\.y_max: got 0\.0"),
        ({"region_to_category": {"region": {"x_min": float("nan")}}}, r"region_to_category\.region\.x_min: got nan"),
    ],
)
def test_the_error_of_an_invalid_request_names_field_value_and_limit(request_fields, message):
    with pytest.raises(InvalidArgumentError, match=f"^{message}"):
        check_request(v1.TaskRequest(**request_fields))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: got 0, expected at least 1"),
        ({"min_new_tokens": -1}, "min_new_tokens: got -1, expected at least 0"),
        ({"min_new_tokens": 6, "max_new_tokens": 5}, r"min_new_tokens: got 6, expected 0 to 5 \(max_new_tokens\)"),
        ({"num_beams": 0}, "num_beams: got 0, expected 1 to 8"),
        ({"num_beams": 9}, "num_beams: got 9, expected 1 to 8"),
        ({"length_penalty": 10.5}, "length_penalty: got 10.5, expected -10 to 10"),
        ({"length_penalty": float("nan")}, "length_penalty: got nan"),
        ({"no_repeat_ngram_size": 1025}, "no_repeat_ngram_size: got 1025, expected 0 to 1024"),
        ({"repetition_penalty": 0}, "repetition_penalty: got 0.0, expected 0.1 to 10"),
        ({"repetition_penalty": 10.5}, "repetition_penalty: got 10.5, expected 0.1 to 10"),
        ({"early_stopping": 7}, "early_stopping: got 7, expected one of .*EARLY_STOPPING_NEVER"),
    ],
)
def test_generation_options_have_ranges(options, message):
    with pytest.raises(InvalidArgumentError, match=rf"generation\.{message}"):
        check_request(v1.TaskRequest(prompt="<OD>", generation=options))
