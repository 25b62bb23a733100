import pytest
from florence2.errors import InvalidArgumentError
from florence2.prompts import render_prompt
from florence2.tasks import TASKS
from florence2.v1 import BoundingBox, TaskRequest
from florence2_server.stub.prompts import prompt_parts
from florence2_server.v1.engine_pb2 import PromptPart

REGION = BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4)
WITH_TEXT = [task for task in TASKS if task.takes_text]
WITH_SEVERAL = [task for task in TASKS if task.inputs]


@pytest.mark.parametrize("task", [task for task in TASKS if task.input is None], ids=lambda task: task.name)
def test_a_task_without_input_is_its_sentence(task):
    assert prompt_parts(TaskRequest(**{task.name: {}})) == [PromptPart(markup=task.sentence)]


@pytest.mark.parametrize("task", [task for task in TASKS if task.takes_region], ids=lambda task: task.name)
def test_a_region_is_passed_to_the_engine_in_pixels_and_with_its_path(task):
    before, after = task.sentence.split("{input}")
    region = PromptPart(region=REGION, field=f"{task.name}.region")
    parts = [PromptPart(markup=before), region] + ([PromptPart(markup=after)] if after else [])
    assert prompt_parts(TaskRequest(**{task.name: {"region": REGION}})) == parts


@pytest.mark.parametrize("task", WITH_TEXT, ids=lambda task: task.name)
@pytest.mark.parametrize("words", ["a cat", " {input} {0} <loc_5> </s> ", "<OD>", "car<and>building"])
def test_a_callers_text_is_plain_text(task, words):
    (part,) = prompt_parts(TaskRequest(**{task.name: {task.input: words}}))
    sentence = task.sentence.replace("{input}", words.strip())
    assert part == PromptPart(text=sentence, field=f"{task.name}.{task.input}")


@pytest.mark.parametrize("task", WITH_SEVERAL, ids=lambda task: task.name)
def test_several_inputs_are_joined_with_the_models_separator(task):
    request = TaskRequest(**{task.name: {task.inputs: [" a car", "<OD>", "a building\n"]}})
    (part,) = prompt_parts(request)
    sentence = task.sentence.replace("{input}", "a car<and><OD><and>a building")
    assert part == PromptPart(text=sentence, field=f"{task.name}.{task.inputs}")
    # The sentence is that of the rendered prompt.
    (rendered,) = prompt_parts(TaskRequest(prompt=render_prompt(request)))
    assert rendered == PromptPart(markup=sentence, field="prompt")


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("<OD>", "Locate the objects with category name in the image."),
        ("<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>", "What text is in the region <loc_1><loc_2><loc_3><loc_4>?"),
        ("<CAPTION_TO_PHRASE_GROUNDING>a <loc_5> cat", "Locate the phrases in the caption: a <loc_5> cat"),
        ("<OPEN_VOCABULARY_DETECTION>car<and>building", "Locate car<and>building in the image."),
        ("<DocVQA>What? <loc_5>", "<DocVQA>What? <loc_5>"),
    ],
)
def test_a_rendered_prompt_is_expanded_for_the_model(prompt, sentence):
    part = PromptPart(markup=sentence, field="prompt")
    assert prompt_parts(TaskRequest(prompt=prompt)) == [part]
    assert prompt_parts(TaskRequest(prompt=prompt, open_vocabulary_detection={"query": "a dog"})) == [part]
    free = PromptPart(markup=sentence, field="free_prompt.text")
    assert prompt_parts(TaskRequest(free_prompt={"text": prompt})) == [free]


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [({"prompt": "<OD> and a cat"}, "prompt"), ({"free_prompt": {"text": "<OD> and a cat"}}, r"free_prompt\.text")],
)
def test_text_after_a_task_without_input_is_rejected(request_fields, field):
    with pytest.raises(InvalidArgumentError, match=f"^{field}: got .* nothing after <OD>"):
        prompt_parts(TaskRequest(**request_fields))
