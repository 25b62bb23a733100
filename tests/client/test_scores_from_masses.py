"""Scores, from the masses of tokens."""

import numpy as np
import pytest
from florence2 import TokenScores, decode

from tests.client.test_parsing import SIZE
from tests.client.test_scores import BOX, END, OTHER, START, Tokens, mean, scored


def with_masses(task: str, tokens: Tokens):
    """The decoded answer of these tokens, given with their masses; their probabilities are a tenth of these."""
    text = "".join(words for words, _ in tokens)
    ends = np.cumsum([len(words.encode()) for words, _ in tokens])
    masses = np.array([mass for _, mass in tokens])
    return decode(task, text, SIZE, TokenScores(np.log(masses / 10), ends, masses))


def test_the_location_of_a_box_has_the_product_of_its_masses_as_score():
    (score,) = with_masses("<REGION_PROPOSAL>", [START, *BOX, END]).location_scores
    assert score == pytest.approx(0.9 * 0.8 * 0.7 * 0.6)


def test_quads_and_outlines_count_as_much_as_a_box():
    alike = [(words, 0.9) for words, _ in (*BOX, *OTHER)]
    (quad,) = with_masses("<OCR_WITH_REGION>", [START, ("HI", 0.5), *alike, END]).location_scores
    (outline,) = with_masses("<REGION_TO_SEGMENTATION>", [START, *alike, END]).scores
    assert [quad, outline] == pytest.approx([0.9**4, 0.9**4])


def test_a_label_is_scored_per_token():
    (score,) = with_masses("<OD>", [START, ("big", 0.25), (" dog", 0.04), *BOX, END]).label_scores
    assert score == pytest.approx(0.1)


def test_the_score_of_an_object_is_the_geometric_mean_of_label_and_location():
    found = with_masses("<OD>", [START, ("car", 0.5), *BOX, END])
    assert found.scores == pytest.approx(np.sqrt(found.label_scores * found.location_scores))
    assert found.likelihoods == pytest.approx([mean(("car", 0.5), *BOX) / 10])


def test_without_a_label_the_score_is_that_of_the_location():
    found = with_masses("<REGION_PROPOSAL>", [START, *BOX, END])
    assert found.label_scores is None
    assert found.scores == pytest.approx(found.location_scores)


def test_a_text_is_scored_per_token():
    answer = [START, ("A", 0.5), (" dog", 0.9), END]
    text = with_masses("<CAPTION>", answer)
    assert (text.score, text.likelihood) == pytest.approx((mean(*answer), mean(*answer) / 10))


def test_without_masses_there_are_likelihoods_but_no_scores():
    found = scored("<OD>", [START, ("car", 0.5), *BOX, END])
    assert (found.scores, found.label_scores, found.location_scores) == (None, None, None)
    assert found.likelihoods is not None
    assert scored("<CAPTION>", [START, END]).score is None


def test_an_impossible_token_has_a_score_near_zero():
    found = with_masses("<REGION_PROPOSAL>", [START, *BOX])
    ends = [7 + 8 * index for index in range(5)]
    impossible = decode("<REGION_PROPOSAL>", "</s><s>" + "<loc_10>" * 4, SIZE, TokenScores([-80] * 5, ends, [0.0] * 5))
    assert 0 <= impossible.scores[0] < 1e-30 < found.scores[0]
