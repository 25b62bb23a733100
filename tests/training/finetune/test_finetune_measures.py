from pathlib import Path

import pytest

from training.finetune.examples import Example
from training.finetune.measures import (
    anls,
    default_measure,
    detection_f1,
    edit_distance,
    exact_match,
    has_boxes,
    similarity,
)


def examples(prompt, *answers):
    return [
        Example(Path("a.png"), prompt, answer if isinstance(answer, tuple) else (answer,), "") for answer in answers
    ]


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("a", "a", 0)],
)
def test_edit_distance(one, other, distance):
    assert edit_distance(one, other) == edit_distance(other, one) == distance


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        ("Total", "total ", 1),
        ("kitten", "sitting", 1 - 3 / 7),
        ("flaw", "lawn", 0.5),  # not below the limit
        ("abc", "abxyz", 0),  # 3 of 5 differ
        ("", "", 1),
    ],
)
def test_similarity(text, answer, expected):
    assert similarity(text, answer) == pytest.approx(expected)


def test_anls_takes_the_nearest_true_answer():
    truth = examples("<DocVQA>?", ("sitting", "kitten"), "12", "red")
    assert anls(truth, ["</s><s>kitten</s>", "</s><s>13</s>", "</s><s>blue</s>"]) == pytest.approx(1.5 / 3)


def test_exact_match_ignores_control_tokens_and_white_space_around_an_answer():
    truth = examples("?", "red", ("red", "scarlet"), "red", "red")
    assert exact_match(truth, ["</s><s>red</s><pad>", "</s><s> scarlet</s>", "</s><s>Red</s>", "</s></s>"]) == 0.5


def test_f1_counts_boxes_over_all_images():
    truth = examples(
        "<OD>",
        "car<loc_0><loc_0><loc_500><loc_500><loc_600><loc_600><loc_700><loc_700>",
        "dog<loc_0><loc_0><loc_100><loc_100>",
    )
    texts = [
        # The first overlaps by 0.8; the second has another label.
        "</s><s>car<loc_0><loc_0><loc_500><loc_400>bus<loc_600><loc_600><loc_700><loc_700></s>",
        "</s><s></s>",
    ]
    assert detection_f1(truth, texts) == pytest.approx(2 * 1 / (3 + 2))
    assert detection_f1(truth, [f"</s><s>{each.answers[0]}</s>" for each in truth]) == 1


def test_f1_needs_an_overlap_of_half():
    truth = examples("<OD>", "car<loc_0><loc_0><loc_400><loc_400>")
    assert detection_f1(truth, ["car<loc_0><loc_0><loc_400><loc_201>"]) == 1
    assert detection_f1(truth, ["car<loc_0><loc_0><loc_400><loc_198>"]) == 0


def test_f1_of_text_regions_takes_the_box_around_a_quad():
    quad = "OPEN<loc_0><loc_0><loc_100><loc_0><loc_100><loc_50><loc_0><loc_50>"
    assert detection_f1(examples("<OCR_WITH_REGION>", quad), [quad]) == 1


def test_nothing_to_find_and_nothing_found_is_right():
    assert detection_f1(examples("<OD>", ""), ["</s><s></s>"]) == 1


def test_answers_of_boxes_are_recognized_by_their_prompt():
    assert has_boxes(examples("<OD>", "")[0])
    assert has_boxes(examples("<CAPTION_TO_PHRASE_GROUNDING>a car", "")[0])
    assert not has_boxes(examples("<CAPTION>", "")[0])
    assert not has_boxes(examples("What is it?", "")[0])


@pytest.mark.parametrize(
    ("prompts", "measure"),
    [
        (["<OD>", "<OCR_WITH_REGION>"], "f1"),
        (["<CAPTION>", "<MORE_DETAILED_CAPTION>"], "loss"),
        (["<REFERRING_EXPRESSION_SEGMENTATION>a car"], "loss"),
        (["<OCR>"], "exact"),
        (["<DocVQA>What is the total?"], "exact"),
        (["<OD>", "<CAPTION>"], "exact"),
    ],
)
def test_the_measure_fits_the_answers(prompts, measure):
    assert default_measure([each for prompt in prompts for each in examples(prompt, "x")]) == measure
