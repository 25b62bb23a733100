"""Parsing of well-formed and malformed answers."""

import time

import numpy as np
import pytest
from florence2 import Detections, Segmentation, Text, TextRegions, decode, v1
from florence2.errors import InvalidArgumentError
from florence2.tasks import TASKS, AnswerForm, task_named
from hypothesis import given
from hypothesis import strategies as st

SIZE = (1000, 500)  # bin k is 1 pixel wide and half a pixel high
BOX = "<loc_10><loc_20><loc_30><loc_40>"
BOX_PIXELS = [10, 10, 30, 20]
OTHER = "<loc_500><loc_600><loc_700><loc_800>"
OTHER_PIXELS = [500, 300, 700, 400]
TEXT_TASKS = ["<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<OCR>"]
LABELED_BOX_TASKS = [
    "<OD>",
    "<DENSE_REGION_CAPTION>",
    "<CAPTION_TO_PHRASE_GROUNDING>",
    "<OPEN_VOCABULARY_DETECTION>",
]
POLYGON_TASKS = ["<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>"]
REGION_TEXT_TASKS = ["<REGION_TO_CATEGORY>", "<REGION_TO_DESCRIPTION>", "<REGION_TO_OCR>"]


def whole(coordinates: np.ndarray) -> list:
    return coordinates.astype(int).tolist()


def outlines(polygons: list[list[np.ndarray]]) -> list:
    return [[whole(polygon) for polygon in outline] for outline in polygons]


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_control_tokens_are_removed_from_text(task):
    answer = "</s><s><s><s> A dog\non a café's “mat”. </s><pad><pad>"
    assert decode(task, answer, SIZE) == Text("A dog\non a café's “mat”.")


@pytest.mark.parametrize("task", LABELED_BOX_TASKS)
def test_a_label_belongs_to_every_box_that_follows_it(task):
    found = decode(task, f"</s><s>car{BOX}{OTHER} big dog{OTHER}</s>", SIZE)
    assert found.labels == ["car", "car", "big dog"]
    assert whole(found.boxes) == [BOX_PIXELS, OTHER_PIXELS, OTHER_PIXELS]
    assert (found.scores, found.polygons) == (None, None)


def test_region_proposals_have_empty_labels():
    found = decode("<REGION_PROPOSAL>", f"</s><s>{BOX}{OTHER}</s>", SIZE)
    assert found.labels == ["", ""]
    assert whole(found.boxes) == [BOX_PIXELS, OTHER_PIXELS]


@pytest.mark.parametrize("task", POLYGON_TASKS)
def test_polygons_of_one_outline_are_separated_by_sep(task):
    found = decode(task, f"</s><s>{BOX}<loc_50><loc_60><sep>{OTHER}</s>", SIZE)
    assert found.labels == [""]
    assert outlines(found.polygons) == [[[[10, 10], [30, 20], [50, 30]], [[500, 300], [700, 400]]]]


@pytest.mark.parametrize("task", POLYGON_TASKS)
def test_every_poly_is_an_outline(task):
    found = decode(task, f"<poly>{BOX}</poly><poly>{OTHER}<sep>{BOX}</poly>", SIZE)
    first, second = [[10, 10], [30, 20]], [[500, 300], [700, 400]]
    assert outlines(found.polygons) == [[first], [second, first]]


def test_open_vocabulary_polygons_have_enclosing_boxes():
    found = decode("<OPEN_VOCABULARY_DETECTION>", f"a car<poly>{OTHER}<sep>{BOX}</poly>", SIZE)
    assert found.labels == ["a car"]
    assert whole(found.boxes) == [[10, 10, 700, 400]]
    assert outlines(found.polygons) == [[[[500, 300], [700, 400]], [[10, 10], [30, 20]]]]


def test_open_vocabulary_answers_may_mix_boxes_and_polygons():
    found = decode("<OPEN_VOCABULARY_DETECTION>", f"car{BOX}{OTHER}dog<poly>{BOX}</poly>", SIZE)
    assert found.labels == ["car", "car", "dog"]
    assert whole(found.boxes) == [BOX_PIXELS, OTHER_PIXELS, BOX_PIXELS]
    assert outlines(found.polygons) == [[], [], [[[10, 10], [30, 20]]]]


def test_a_piece_of_text_has_one_quad():
    found = decode("<OCR_WITH_REGION>", f"</s><s>HELLO{BOX}{BOX}{OTHER}{OTHER}wörld{OTHER}{OTHER}</s>", SIZE)
    assert found.labels == ["HELLO", "wörld"]
    assert whole(found.quads) == [BOX_PIXELS * 2, OTHER_PIXELS * 2]


@pytest.mark.parametrize("task", REGION_TEXT_TASKS)
def test_locations_repeated_in_an_answer_about_a_region_are_dropped(task):
    assert decode(task, f"</s><s>car{BOX}</s>", SIZE) == Text("car")


@pytest.mark.parametrize("task", ["<DocVQA>", v1.Prompt(text="<DocVQA>Total?"), ""])
def test_a_prompt_of_no_task_has_a_text_answer_that_keeps_its_locations(task):
    assert decode(task, f"</s><s>12 EUR{BOX}</s>", (0, 0)) == Text(f"12 EUR{BOX}")


def test_a_task_is_given_by_token_message_or_row():
    answer = f"car{BOX}"
    row = task_named("<OD>")
    assert decode("<OD>", answer, SIZE) == decode(v1.ObjectDetection(), answer, SIZE) == decode(row, answer, SIZE)


def test_an_image_size_may_be_a_message():
    message = v1.ImageSize(width=1000, height=500)
    assert decode("<OD>", f"car{BOX}", message) == decode("<OD>", f"car{BOX}", SIZE)


def test_an_impossible_image_size_is_an_error():
    with pytest.raises(InvalidArgumentError, match="image_size: got \\(0, 500\\)"):
        decode("<OD>", f"car{BOX}", (0, 500))


# Differences from Hugging Face's processor, numbered as in the docstring of parsing.py.


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (f"日本語 naïve{BOX}", "日本語 naïve"),  # 2
        (f"two\nlines{BOX}", "two\nlines"),  # 3
        (f"a < b{BOX}", "a < b"),
        (f"<loc_1><loc_2><loc_3>dog{BOX}", "dog"),
        (f"<od>dog</od>{BOX}", "dog"),
        (f"dog<loc_1000>{BOX}", "dog"),  # 4
        (f"car<loc_1><loc_2><loc_1000><loc_3><loc_4>dog{BOX}", "dog"),
        (f"car<loc_1><loc_2><loc_99999999999999999999><loc_4>dog{BOX}", "dog"),
        (f"<loc_1>{BOX}dog{BOX}", "dog"),  # 8
        (f"{BOX}dog{BOX}", "dog"),
    ],
)
def test_labels_for_which_the_processor_differs(answer, label):
    found = decode("<OD>", answer, SIZE)
    assert (found.labels, whole(found.boxes)) == ([label], [BOX_PIXELS])


@pytest.mark.parametrize("answer", [f"two\nlines{BOX}{BOX}", f"<loc_1>{BOX}{BOX}two\nlines{BOX}{BOX}"])
def test_text_with_regions_keeps_line_breaks(answer):
    assert decode("<OCR_WITH_REGION>", answer, SIZE).labels == ["two\nlines"]


@pytest.mark.parametrize("task", POLYGON_TASKS)
@pytest.mark.parametrize(
    ("answer", "polygons"),
    [
        (f"{BOX}<sep><loc_1>", [[[[10, 10], [30, 20]]]]),
        (f"{BOX}<loc_1>", [[[[10, 10], [30, 20]]]]),
        ("<loc_1><sep><loc_2><sep><loc_3>", []),
        (f"{BOX}</poly>", [[[[10, 10], [30, 20]]]]),
        (f"<poly>{BOX}</poly><poly>{OTHER}", [[[[10, 10], [30, 20]]], [[[500, 300], [700, 400]]]]),
    ],
)
def test_polygons_keep_only_complete_vertices(task, answer, polygons):
    assert outlines(decode(task, answer, SIZE).polygons) == polygons


def test_no_phrase_is_excluded_from_phrase_grounding():
    assert decode("<CAPTION_TO_PHRASE_GROUNDING>", f"it{BOX}the image{BOX}", SIZE).labels == [
        "it",
        "the image",
    ]


# Incomplete items are left out.


@pytest.mark.parametrize("cut", range(len(f"dog{OTHER}")))
def test_a_truncated_answer_keeps_its_complete_boxes(cut):
    found = decode("<OD>", f"car{BOX}" + f"dog{OTHER}"[:cut], SIZE)
    assert (found.labels, whole(found.boxes)) == (["car"], [BOX_PIXELS])


def test_inverted_boxes_are_kept_as_generated():
    found = decode("<OD>", "car<loc_30><loc_40><loc_10><loc_20>", SIZE)
    assert whole(found.boxes) == [[30, 20, 10, 10]]


pieces = st.one_of(
    st.sampled_from(["<loc_", "<loc_1", "<loc_1000>", "<loc_٣>", "<loc_-1>", "<", ">", "<s>", "</s>", "<pad>"]),
    st.sampled_from(["<sep>", "<poly>", "</poly>", "<od>", "car", "\0", "\n", "{x}", "\ud800", BOX, BOX * 3]),
    st.integers(0, 999).map("<loc_{}>".format),
    st.text(max_size=5),
)


@given(st.lists(pieces, max_size=60).map("".join), st.tuples(st.integers(1, 100_000), st.integers(1, 100_000)))
def test_any_text_decodes_to_complete_shapes_inside_the_image(answer, image_size):
    for task in TASKS:
        check_result(task.answer, decode(task, answer, image_size), np.array(image_size))


def check_result(form, result, size):
    match result:
        case Text():
            assert form in (AnswerForm.TEXT, AnswerForm.REGION_TEXT)
        case Detections():
            assert form in (AnswerForm.LABELED_BOXES, AnswerForm.BOXES, AnswerForm.LABELED_BOXES_OR_POLYGONS)
            check_inside(result.boxes.reshape(-1, 2, 2), size)
            check_outlines(result.polygons or [], size)
        case Segmentation():
            assert form is AnswerForm.POLYGONS
            assert all(result.polygons)
            check_outlines(result.polygons, size)
        case TextRegions():
            assert form is AnswerForm.QUADS
            check_inside(result.quads.reshape(-1, 4, 2), size)


def check_outlines(polygons, size):
    for polygon in (polygon for outline in polygons for polygon in outline):
        assert len(polygon)
        check_inside(polygon, size)


def check_inside(points, size):
    assert points.dtype == np.float32
    assert ((points > 0) & (points < size)).all()


@pytest.mark.parametrize("piece", ["<loc_1>", "<poly>", "<", "<loc_", "a", "a<loc_1>", "\n<loc_1><sep>", f"a{BOX}"])
@pytest.mark.parametrize("form", AnswerForm)
def test_a_megabyte_is_decoded_in_linear_time(form, piece):
    task = next(task for task in TASKS if task.answer is form)
    start = time.process_time()
    decode(task, piece * (1_000_000 // len(piece)), SIZE)
    assert time.process_time() - start < 10  # a few tenths when linear, hours when quadratic
