import pytest
from florence2.engine.v1.engine_pb2 import PromptPart
from florence2.errors import InvalidArgumentError
from florence2.tasks import TASKS
from florence2.v1 import BoundingBox, TaskRequest
from florence2_adapter.prompts import prompt_parts

REGION = BoundingBox(x_min=1, y_min=2, x_max=3, y_max=4)


@pytest.mark.parametrize("task", [task for task in TASKS if task.input is None], ids=lambda task: task.name)
def test_a_task_without_input_is_its_sentence(task):
    assert prompt_parts(TaskRequest(**{task.name: {}})) == [PromptPart(text=task.sentence)]


@pytest.mark.parametrize("task", [task for task in TASKS if task.input == "region"], ids=lambda task: task.name)
def test_a_region_stays_pixels_for_the_engine(task):
    before, after = task.sentence.split("{input}")
    parts = [PromptPart(text=before), PromptPart(region=REGION)] + ([PromptPart(text=after)] if after else [])
    assert prompt_parts(TaskRequest(**{task.name: {"region": REGION}})) == parts


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task.input not in (None, "region")], ids=lambda task: task.name
)
@pytest.mark.parametrize("words", ["a cat", " {input} {0} <loc_5> </s> ", "<OD>"])
def test_a_callers_words_are_text(task, words):
    (part,) = prompt_parts(TaskRequest(**{task.name: {task.input: words}}))
    assert part == PromptPart(text=task.sentence.replace("{input}", words.strip()))


@pytest.mark.parametrize(
    ("prompt", "part"),
    [
        ("<OD>", PromptPart(markup="Locate the objects with category name in the image.")),
        (
            "<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>",
            PromptPart(markup="What text is in the region <loc_1><loc_2><loc_3><loc_4>?"),
        ),
        (
            "<CAPTION_TO_PHRASE_GROUNDING>a <loc_5> cat",
            PromptPart(text="Locate the phrases in the caption: a <loc_5> cat"),
        ),
        ("<DocVQA>What? <loc_5>", PromptPart(markup="<DocVQA>What? <loc_5>")),
    ],
)
def test_a_rendered_prompt_is_expanded(prompt, part):
    assert prompt_parts(TaskRequest(prompt=prompt)) == [part]
    assert prompt_parts(TaskRequest(free_prompt={"text": prompt})) == [part]


def test_words_after_a_task_that_takes_none_are_refused():
    with pytest.raises(InvalidArgumentError, match="<OD>"):
        prompt_parts(TaskRequest(prompt="<OD> and a cat"))
