"""Generated answers, well-formed and malformed, are decoded as by Hugging Face's processor."""

import re

import numpy as np
import pytest
from florence2 import Detections, Segmentation, Text, TextRegions, decode
from florence2.locations import LOCATION_BINS, bins_to_pixels
from florence2.tasks import TASKS, AnswerForm
from hypothesis import given
from hypothesis import strategies as st

# Cases in which the processor is wrong (line breaks and "<" in labels, numbers above 999) are in test_parsing.py.
words = st.one_of(
    st.sampled_from(["car", " a green car", "日本語", "café ", "{0}", "loc_5", "poly", " ", "the image", "it"]),
    st.text(st.characters(exclude_characters="<>\n", exclude_categories=["Cs"]), min_size=1, max_size=12),
)
control_tokens = st.sampled_from(["", "", "", "<s>", "</s>", "<s><s>", "<pad>"])
image_sizes = st.tuples(st.integers(1, 10_000), st.integers(1, 10_000))


def locations(least: int, most: int) -> st.SearchStrategy[str]:
    bins = st.lists(st.integers(0, 999), min_size=least, max_size=most)
    return bins.map(lambda chosen: "".join(f"<loc_{number}>" for number in chosen))


def phrases(run: st.SearchStrategy[str], unlabeled: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Answers of labels and runs of locations; some begin with the end of a run, some are truncated."""
    labeled = st.builds(lambda *parts: "".join(parts), control_tokens, words, control_tokens, run)
    whole = st.builds(lambda start, rest: f"</s><s>{start}{''.join(rest)}</s>", unlabeled, st.lists(labeled))
    return st.builds(lambda answer, cut: answer[: len(answer) - cut], whole, st.integers(0, 12))


labeled_boxes = phrases(locations(0, 14), unlabeled=locations(0, 4))
quads = phrases(locations(0, 16), unlabeled=locations(0, 8))
boxes = st.lists(st.one_of(locations(0, 14), words, control_tokens)).map("".join)
polygons = st.lists(locations(0, 9), min_size=1, max_size=3).map("<sep>".join)
closed = st.lists(polygons.map("<poly>{}</poly>".format), min_size=1, max_size=3).map("".join)
outlines = st.tuples(locations(0, 3), closed, locations(0, 3)).map("".join)  # stray locations around them
outline_answers = st.lists(st.one_of(polygons, outlines, polygons.map("<poly>{}".format)), max_size=4).map("x".join)
labeled_outlines = phrases(outlines, unlabeled=st.just("")).filter(lambda answer: answer.endswith("</s>"))
plain = st.lists(st.one_of(words, control_tokens, locations(0, 4), st.just("<b>\n"))).map("".join)

ANSWERS = {
    AnswerForm.TEXT: plain,
    AnswerForm.REGION_TEXT: plain,
    AnswerForm.LABELED_BOXES: labeled_boxes,
    AnswerForm.BOXES: boxes,
    AnswerForm.POLYGONS: outline_answers,
    AnswerForm.LABELED_BOXES_OR_POLYGONS: st.one_of(labeled_boxes, labeled_outlines),
    AnswerForm.QUADS: quads,
}


def test_every_form_of_answer_is_compared():
    assert set(ANSWERS) == set(AnswerForm)


@pytest.mark.parametrize("task", [task for task in TASKS if task.token], ids=lambda task: task.name)
def test_answers_are_decoded_as_by_the_processor(task, processor):
    @given(ANSWERS[task.answer], image_sizes)
    def compare(answer, image_size):
        expected = processor.post_process_generation(text=answer, task=task.token, image_size=image_size)
        COMPARISONS[task.answer](decode(task, answer, image_size), expected[task.token])

    compare()


def test_every_bin_has_the_processor_s_integer_part_at_any_image_size(processor):
    torch = pytest.importorskip("torch")
    bins = np.repeat(np.arange(LOCATION_BINS)[:, None], 2, axis=1)
    for side in range(1, 4001):
        expected = processor.post_processor.dequantize(torch.from_numpy(bins), (side, 2 * side))
        assert np.array_equal(bins_to_pixels(bins, (side, 2 * side)).astype(int), expected.numpy()), side


def compare_texts(result, expected):
    assert isinstance(result, Text)
    assert result.text == expected.replace("<pad>", "").strip()


def compare_region_texts(result, expected):
    compare_texts(result, re.sub(r"<loc_\d+>", "", expected))


def compare_boxes(result, expected):
    assert isinstance(result, Detections)
    assert whole(result.boxes) == expected["bboxes"]
    assert ascii_only(result.labels) == without_token_rests(expected["labels"])


def compare_polygons(result, expected):
    assert isinstance(result, Segmentation)
    assert [flat(outline) for outline in result.polygons] == without_empty(expected["polygons"])
    assert set(result.labels) <= {""}


def compare_boxes_or_polygons(result, expected):
    assert isinstance(result, Detections)
    if result.polygons is None:
        compare_boxes(result, {"bboxes": expected["bboxes"], "labels": expected["bboxes_labels"]})
        assert without_empty(expected["polygons"]) == []
        return
    assert [flat(outline) for outline in result.polygons] == without_empty(expected["polygons"])
    outlined = zip(expected["polygons_labels"], expected["polygons"], strict=True)
    labels = [label for label, outline in outlined if any(outline)]
    assert result.labels == without_token_rests(labels)
    assert whole(result.boxes) == [enclosing_box(outline) for outline in without_empty(expected["polygons"])]


def compare_quads(result, expected):
    assert isinstance(result, TextRegions)
    assert whole(result.quads) == expected["quad_boxes"]
    assert result.labels == without_token_rests(expected["labels"])


COMPARISONS = {
    AnswerForm.TEXT: compare_texts,
    AnswerForm.REGION_TEXT: compare_region_texts,
    AnswerForm.LABELED_BOXES: compare_boxes,
    AnswerForm.BOXES: compare_boxes,
    AnswerForm.POLYGONS: compare_polygons,
    AnswerForm.LABELED_BOXES_OR_POLYGONS: compare_boxes_or_polygons,
    AnswerForm.QUADS: compare_quads,
}


def whole(coordinates: np.ndarray) -> list[list[int]]:
    """The integer parts of coordinates, which the processor returns."""
    return coordinates.astype(int).tolist()


def flat(outline: list[np.ndarray]) -> list[list[int]]:
    return [polygon.astype(int).reshape(-1).tolist() for polygon in outline]


def without_empty(outlines: list[list[list[int]]]) -> list[list[list[int]]]:
    kept = [[polygon for polygon in outline if polygon] for outline in outlines]
    return [outline for outline in kept if outline]


def enclosing_box(outline: list[list[int]]) -> list[int]:
    xs = [x for polygon in outline for x in polygon[::2]]
    ys = [y for polygon in outline for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs), max(ys)]


def without_token_rests(labels: list[str]) -> list[str]:
    """The processor's labels without the partial token at the beginning of some of them, as in `loc_7>dog`."""
    return [label.rsplit(">", 1)[-1].strip() for label in labels]


def ascii_only(labels: list[str]) -> list[str]:
    """Labels as returned by the processor, which drops all non-ASCII characters."""
    return [label.encode("ascii", "ignore").decode().strip() for label in labels]
