import random

import numpy as np
import pytest

from training.demo.answers import (
    TASKS,
    WORD_TASKS,
    caption,
    detailed_caption,
    make_example,
    more_detailed_caption,
    tasks_of,
)
from training.demo.batches import label_ids
from training.demo.demo_scene import demo_scene
from training.demo.evaluate import score
from training.demo.sampling import sample_scene
from training.demo.scenes import Box, Scene, Shape, Word

SCENES = [sample_scene(seed) for seed in range(150)]
EXAMPLE = Scene(
    width=400,
    height=200,
    background="white",
    shapes=(
        Shape("circle", "red", "large", Box(20, 20, 90, 90)),
        Shape("square", "orange", "small", Box(110, 150, 150, 190)),
        Shape("circle", "red", "large", Box(300, 100, 370, 170)),
    ),
    words=(Word("OPEN", 30, Box(160, 20, 240, 45)),),
)


def examples(scene, seed=0):
    rng = random.Random(seed)
    return [make_example(scene, task, rng) for task in tasks_of(scene)]


def boxes_of(items):
    return sorted([item.box.left, item.box.top, item.box.right, item.box.bottom] for item in items)


def near(found, true, scene):
    tolerance = max(scene.width, scene.height) / 1000 + 1
    return np.allclose(found, true, rtol=0, atol=tolerance)


def parse(processor, scene, task, answer):
    return processor.post_process_generation(text=answer, task=task, image_size=(scene.width, scene.height))[task]


def test_captions_increase_in_detail():
    assert caption(EXAMPLE) == "Two red circles and an orange square."
    assert detailed_caption(EXAMPLE) == (
        "The image shows two red circles and an orange square on a white background with the word OPEN."
    )
    assert more_detailed_caption(EXAMPLE) == (
        "On a white background, two large red circles upper left and lower right, and small orange square lower left."
        " The text says OPEN."
    )


def test_detection_groups_boxes_by_label_in_reading_order():
    answer = make_example(EXAMPLE, "<OD>", random.Random(0)).answer
    assert answer == (
        "red circle<loc_50><loc_100><loc_225><loc_450><loc_750><loc_500><loc_925><loc_850>"
        "orange square<loc_275><loc_750><loc_375><loc_950>"
    )


@pytest.mark.parametrize("task", ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>"])
def test_boxes_parse_back_to_the_scene(processor, task):
    for scene in SCENES:
        answer = parse(processor, scene, task, make_example(scene, task, random.Random(0)).answer)
        assert near(sorted(answer["bboxes"]), boxes_of(scene.shapes), scene)
        if task == "<OD>":
            assert sorted(answer["labels"]) == sorted(shape.label for shape in scene.shapes)
        if task == "<DENSE_REGION_CAPTION>":
            assert sorted(answer["labels"]) == sorted(shape.description for shape in scene.shapes)


def test_words_parse_back_to_the_scene(processor):
    for scene in SCENES:
        if not scene.words:
            continue
        example = make_example(scene, "<OCR_WITH_REGION>", random.Random(0))
        answer = parse(processor, scene, example.task, example.answer)
        assert answer["labels"] == [word.text for word in scene.words]
        quads = sorted([*quad[:2], *quad[4:6]] for quad in answer["quad_boxes"])
        assert near(quads, boxes_of(scene.words), scene)


def test_true_answers_get_the_full_score(processor):
    for scene in SCENES:
        for example in examples(scene):
            result = score(scene, example, example.answer, processor)
            assert result.gained == result.possible, example


def test_tasks_about_words_apply_only_to_scenes_with_words():
    for scene in SCENES:
        assert set(tasks_of(scene)) == set(TASKS) - (set() if scene.words else WORD_TASKS)


def test_no_answer_repeats_three_tokens(processor):
    for scene in [*SCENES, demo_scene()]:
        for example in examples(scene):
            ids = label_ids(example, processor)
            trigrams = list(zip(ids, ids[1:], ids[2:], strict=False))
            assert len(set(trigrams)) == len(trigrams), example
