import numpy as np
import pytest

from training.demo.metrics import Found, Score, f1, iou, mask, mask_iou, mean_iou, words

UNIT = (0, 0, 10, 10)


@pytest.mark.parametrize(("other", "expected"), [(UNIT, 1), ((5, 0, 15, 10), 1 / 3), ((20, 20, 30, 30), 0)])
def test_iou(other, expected):
    assert iou(UNIT, other) == pytest.approx(expected)


def test_a_detection_counts_if_label_and_box_match():
    truth = Found(["red circle"], [UNIT])
    assert f1(truth, truth) == Score(2, 2)
    assert f1(truth, Found(["blue circle"], [UNIT])).gained == 0
    assert f1(truth, Found(["red circle"], [(9, 9, 19, 19)])).gained == 0


def test_a_duplicate_box_counts_once():
    assert f1(Found(["a"], [UNIT]), Found(["a", "a"], [UNIT, UNIT])) == Score(2, 3)


def test_a_missing_box_has_no_overlap():
    assert mean_iou(Found(["a", "b"], [UNIT, UNIT]), Found(["a"], [UNIT])) == Score(1, 2)


def test_invented_words_lower_the_score():
    assert words("OPEN EXIT", "OPEN") == Score(1, 2)
    assert words("OPEN", "OPEN EXIT") == Score(1, 2)


def test_masks_overlap():
    left, all_of_it = mask([[0, 0, 4, 0, 4, 9, 0, 9]], (10, 10)), np.ones((10, 10), bool)
    assert mask_iou(left, all_of_it).gained == pytest.approx(0.5)
    assert not mask([[1, 1]], (10, 10)).any()
