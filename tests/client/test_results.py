import dataclasses

import numpy as np
import pytest
from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.locations import region_bins
from florence2.results import Detections, Segmentation, Text, TextRegions
from hypothesis import given
from hypothesis import strategies as st

TRIANGLE = [[0, 0], [4, 0], [0, 3]]
LINE = [[1, 1], [2, 2]]


def detections() -> Detections:
    return Detections(
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        ["a", "b", "c"],
        [0.5, 0.25, 1],
        [[TRIANGLE, LINE], [], [LINE]],
        [0.75, 0.125, 1],
        [0.25, 0.5, 1],
        [0.1, 0.2, 0.3],
        [0.4, 0.5, 0.6],
        [0.7, 0.8, 0.9],
        (40, 30),
    )


def segmentation() -> Segmentation:
    return Segmentation([[TRIANGLE, LINE], [LINE]], ["", "dog"], [0.5, 0.25], [0.75, 0.125], (40, 30))


def text_regions() -> TextRegions:
    certainty = ([0.5, 0.25], [0.75, 0.125], [0.25, 0.5], [1, 0], [0.5, 1], [0, 0.25])
    return TextRegions([range(8), range(8, 16)], ["HELLO", "WORLD"], *certainty, image_size=(40, 30))


RESULTS = [detections, segmentation, text_regions]


def test_sequences_of_numbers_become_float32_arrays():
    found = detections()
    assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (3, 4))
    assert (found.scores.dtype, found.scores.shape) == (np.float32, (3,))
    assert (found.polygons[0][0].dtype, found.polygons[0][0].shape) == (np.float32, (3, 2))
    assert (text_regions().quads.dtype, text_regions().quads.shape) == (np.float32, (2, 8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Detections([[0, 1, 2]], ["a"]), r"boxes: got shape \(1, 3\), expected \(1, 4\)"),
        (lambda: Detections([[0, 1, 2, 3]], []), r"boxes: got shape \(1, 4\), expected \(0, 4\)"),
        (lambda: Detections([], ["a"]), r"boxes: got shape \(0,\), expected \(1, 4\)"),
        (lambda: Detections([range(4)], ["a"], [1, 2]), r"scores: got shape \(2,\), expected \(1,\)"),
        (lambda: Detections([range(4)], ["a"], None, []), "polygons: got 0 lists, expected 1"),
        (lambda: Detections([range(4)], ["a"], label_scores=[]), r"label_scores: got shape \(0,\), expected \(1,\)"),
        (lambda: Segmentation([[LINE]], [""], 0.5), r"scores: got shape \(\), expected \(1,\)"),
        (lambda: TextRegions([range(8)], ["a"], location_scores=[[1]]), r"location_scores: got shape \(1, 1\)"),
        (
            lambda: Segmentation([[[[1, 2, 3]]]], [""]),
            r"polygons: got an array of shape \(1, 3\), expected \(M, 2\)",
        ),
        (lambda: Segmentation([[]], []), "polygons: got 1 lists, expected 0"),
        (lambda: TextRegions([range(4)], ["a"]), r"quads: got shape \(1, 4\), expected \(1, 8\)"),
    ],
)
def test_shapes_that_do_not_match_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("result", [Detections, Segmentation, TextRegions])
def test_empty_results_have_no_items(result):
    assert len(result.empty()) == 0
    assert list(result.empty()) == []
    assert result.empty() == result.empty()


def test_empty_arrays_keep_their_columns():
    assert Detections.empty().boxes.shape == (0, 4)
    assert TextRegions.empty().quads.shape == (0, 8)


def test_an_object_has_a_box_a_label_scores_and_polygons():
    box, label, score, polygons, label_score, location_score, likelihood = detections()[1]
    assert (box.tolist(), label, score, polygons) == ([4, 5, 6, 7], "b", 0.25, [])
    assert (label_score, location_score, likelihood) == (0.125, 0.5, pytest.approx(0.2))
    bare = Detections([range(4)], ["a"])[0]
    assert (bare.score, bare.polygons, bare.label_score, bare.location_score, bare.likelihood) == (
        None,
        [],
        *[None] * 3,
    )


def test_segments_and_text_regions_are_shapes_with_labels():
    assert [(len(segment.polygons), segment.label) for segment in segmentation()] == [(2, ""), (1, "dog")]
    assert [region.quad.tolist() for region in text_regions()] == [list(range(8)), list(range(8, 16))]


def test_segments_and_text_regions_have_scores():
    assert [(segment.score, segment.likelihood) for segment in segmentation()] == [(0.5, 0.75), (0.25, 0.125)]
    assert [tuple(region)[2:] for region in text_regions()] == [(0.5, 0.75, 0.25, 1), (0.25, 0.125, 0.5, 0)]
    assert Segmentation([[LINE]], [""])[0].score is None
    assert tuple(TextRegions([range(8)], ["a"])[0])[2:] == (None, None, None, None)


@pytest.mark.parametrize("make", RESULTS)
def test_indices_count_from_either_end_and_end(make):
    result = make()
    assert result[-1].label == result[len(result) - 1].label == result.labels[-1]
    for outside in (len(result), -len(result) - 1):
        with pytest.raises(IndexError):
            result[outside]


MASK = [True, False, True]


@pytest.mark.parametrize("index", [slice(0, 3, 2), [0, 2], (0, 2), range(0, 3, 2), np.array(MASK), MASK, tuple(MASK)])
def test_slices_lists_and_masks_return_smaller_results(index):
    chosen = detections()[index]
    assert isinstance(chosen, Detections)
    assert (chosen.labels, chosen.scores.tolist()) == (["a", "c"], [0.5, 1])
    assert (chosen.label_scores.tolist(), chosen.location_scores.tolist()) == ([0.75, 1], [0.25, 1])
    assert [len(outline) for outline in chosen.polygons] == [2, 1]
    assert chosen.image_size == (40, 30)
    for name in ("likelihoods", "label_likelihoods", "location_likelihoods"):
        assert getattr(chosen, name).tolist() == getattr(detections(), name)[[0, 2]].tolist()


@pytest.mark.parametrize("index", [None, ..., "a", 1.5, [0.5], [[0]], np.zeros((2, 2), int), np.True_])
def test_an_index_of_another_type_is_named(index):
    with pytest.raises(TypeError, match=r"(?s)^index: got .* expected an int, a slice"):
        detections()[index]


def test_there_are_no_polygons_if_no_object_has_an_outline():
    assert detections()[[1]].polygons is None


def test_scores_select_items():
    found, segments, regions = detections(), segmentation(), text_regions()
    assert found[found.scores > 0.3].labels == ["a", "c"]
    assert segments[segments.scores < 0.3].scores.tolist() == [0.25]
    assert regions[regions.label_scores > 0.3] == regions[:1]


@pytest.mark.parametrize("make", RESULTS)
def test_an_empty_selection_is_an_empty_result(make):
    result = make()
    assert len(result[[]]) == len(result[()]) == len(result[:0]) == 0
    assert result[:] == result


@pytest.mark.parametrize("make", RESULTS)
def test_results_are_equal_by_value_and_cannot_be_changed_or_hashed(make):
    assert make() == make()
    assert make() != make()[:1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().labels = []
    with pytest.raises(TypeError, match="unhashable"):
        hash(make())


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Detections) if field.compare])
def test_a_difference_in_any_field_makes_detections_unequal(field):
    others = {
        "boxes": np.zeros((3, 4)),
        "labels": ["a", "b", "x"],
        "scores": None,
        "polygons": [[], [], [LINE]],
        "label_scores": None,
        "location_scores": [0, 0, 0],
        "likelihoods": None,
        "label_likelihoods": [0, 0, 0],
        "location_likelihoods": None,
    }
    assert dataclasses.replace(detections(), **{field: others[field]}) != detections()


@pytest.mark.parametrize("make", [*RESULTS, lambda: Text("a dog", image_size=(40, 30))])
def test_equality_is_about_the_answer_and_not_the_size_of_its_image(make):
    assert make().image_size == (40, 30)
    assert dataclasses.replace(make(), image_size=None) == make()


def test_results_of_different_kinds_are_unequal():
    assert Detections.empty() != TextRegions.empty()
    assert Text("") != Segmentation.empty()


def test_a_text_converts_to_a_string():
    assert str(Text("a dog")) == "a dog"
    assert Text("a dog") == Text("a dog") != Text("a cat")
    assert Text("a dog", 0.5) == Text("a dog", 0.5) != Text("a dog", 0.25)
    assert Text("a dog").score is None


def test_usable_boxes_are_valid_regions():
    found = Detections([[0, 0, 5, 5], [3, 0, 3, 5], [0, 4, 5, 2], [-1, -1, 2, 2], [np.nan, 0, 5, 5]], list("abcde"))
    assert found.usable.tolist() == [True, False, False, True, False]
    assert found.usable.dtype == bool
    assert found[found.usable].labels == ["a", "d"]
    assert found[found.usable].usable.all()
    assert Detections.empty().usable.shape == (0,)
    assert len(Detections.empty()[Detections.empty().usable]) == 0


EDGES = [-1.5, -1, 0, 5, 9.5, 10, 11, 11.5, np.nan, np.inf]


@given(st.lists(st.tuples(*[st.sampled_from(EDGES)] * 4), max_size=20))
def test_a_box_is_usable_in_an_image_of_known_size_if_a_request_may_have_it(boxes):
    found = Detections(np.reshape(boxes, (-1, 4)), [""] * len(boxes), image_size=(10, 10))
    accepted = []
    for x_min, y_min, x_max, y_max in boxes:
        try:
            region_bins(v1.BoundingBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max), (10, 10))
            accepted.append(True)
        except InvalidArgumentError:
            accepted.append(False)
    assert found.usable.tolist() == accepted


@pytest.mark.parametrize("make", RESULTS)
def test_above_selects_higher_scores(make):
    result = make()
    assert result.above(0.3) == result[result.scores > 0.3]
    assert len(result.above(0.25)) < len(result[result.scores >= 0.25])


@pytest.mark.parametrize("make", RESULTS)
def test_conditions_select_items_in_their_order(make):
    result = make()
    assert result.filtered() == result
    assert result.filtered(min_score=0.5) == result[result.scores >= 0.5]
    assert result.filtered(labels={result.labels[1]}) == result[[1]]
    assert result.filtered(max_items=1) == result[[int(result.scores.argmax())]]


def test_conditions_are_combined():
    found = Detections(np.zeros((5, 4)), list("abaca"), [0.1, 0.9, 0.5, 0.9, 0.9])
    assert found.filtered(max_items=2).scores.tolist() == found.scores[[1, 3]].tolist()  # the first of equals
    assert found.filtered(labels=("a", "b"), max_items=2) == found[[1, 4]]
    assert found.filtered(min_score=0.2, labels=["a"]) == found[[2, 4]]
    assert found.filtered(labels=frozenset()) == found[[]]


def test_a_threshold_is_compared_in_float32_as_scores_are():
    found = Detections(np.zeros((1, 4)), ["a"], [0.9])
    assert len(found.filtered(min_score=0.9)) == 1
    assert len(found.above(0.9)) == 0


def test_unknown_scores_can_limit_the_count_but_not_the_score():
    found = Detections(np.zeros((3, 4)), list("abc"))
    assert found.filtered(max_items=2).labels == ["a", "b"]
    for select in (lambda: found.above(0.5), lambda: found.filtered(min_score=0.5)):
        with pytest.raises(InvalidArgumentError, match="scores: got None, expected known scores"):
            select()
    assert Detections.empty().above(0.5) == Detections.empty().filtered(min_score=0.5) == Detections.empty()


@pytest.mark.parametrize(
    ("conditions", "error", "message"),
    [
        ({"min_score": 1.5}, InvalidArgumentError, "min_score: got 1.5, expected 0 to 1"),
        ({"min_score": np.nan}, InvalidArgumentError, "min_score: got nan, expected 0 to 1"),
        ({"min_score": "0.5"}, TypeError, "min_score: got '0.5' of type str, expected a number"),
        ({"min_score": True}, TypeError, "min_score: got True"),
        ({"max_items": 0}, InvalidArgumentError, "max_items: got 0, expected at least 1"),
        ({"max_items": 1.5}, TypeError, "max_items: got 1.5"),
        ({"labels": "dog"}, TypeError, "labels: got 'dog' of type str, expected a collection of str"),
        ({"labels": 7}, TypeError, "labels: got 7"),
        ({"labels": ["dog", 7]}, TypeError, r"labels\[1\]: got 7"),
    ],
)
def test_impossible_conditions_are_named(conditions, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Detections.empty().filtered(**conditions)
