"""The tokens that count for a score, for every form of answer and any division into tokens."""

import dataclasses
import time
from itertools import pairwise
from math import exp, inf, log, nan, prod

import numpy as np
import pytest
from florence2 import Text, TokenScores, decode, v1
from florence2.errors import InvalidArgumentError
from florence2.tasks import TASKS, AnswerForm
from hypothesis import given
from hypothesis import strategies as st

from tests.client.test_parsing import SIZE, pieces

Tokens = list[tuple[str, float]]

START = ("</s><s>", 0.3)
END = ("</s>", 0.6)
BOX: Tokens = [("<loc_10>", 0.9), ("<loc_20>", 0.8), ("<loc_30>", 0.7), ("<loc_40>", 0.6)]
OTHER: Tokens = [("<loc_500>", 0.5), ("<loc_600>", 0.4), ("<loc_700>", 0.3), ("<loc_800>", 0.2)]
SEP = ("<sep>", 0.15)
POLY, END_POLY = ("<poly>", 0.11), ("</poly>", 0.12)


def scored(task: str, tokens: Tokens):
    """The decoded answer of these tokens, given with their probabilities."""
    text = "".join(words for words, _ in tokens)
    ends = np.cumsum([len(words.encode()) for words, _ in tokens])
    return decode(task, text, SIZE, TokenScores([log(probability) for _, probability in tokens], ends))


def mean(*tokens: tuple[str, float]) -> float:
    """The geometric mean of the tokens' probabilities."""
    return prod(probability for _, probability in tokens) ** (1 / len(tokens))


def assert_likelihoods(result, items: list[float], labels: list[float] | None, locations: list[float]):
    assert result.likelihoods.dtype == np.float32
    np.testing.assert_allclose(result.likelihoods, items, rtol=1e-6)
    np.testing.assert_allclose(result.location_likelihoods, locations, rtol=1e-6)
    if labels is None:
        assert result.label_likelihoods is None
    else:
        np.testing.assert_allclose(result.label_likelihoods, labels, rtol=1e-6)


@pytest.mark.parametrize("task", [task.token for task in TASKS if task.answer is AnswerForm.TEXT] + ["<DocVQA>"])
def test_a_text_is_scored_over_all_tokens_including_the_end_token(task):
    answer = [START, ("A", 0.5), (" dog", 0.9), END]
    assert scored(task, answer) == Text("A dog", likelihood=pytest.approx(mean(*answer)))


def test_a_text_about_a_region_is_scored_with_the_locations_that_it_repeats():
    answer = [START, ("car", 0.5), *BOX, END]
    assert scored("<REGION_TO_CATEGORY>", answer) == Text("car", likelihood=pytest.approx(mean(*answer)))


@pytest.mark.parametrize("task", ["<OD>", "<DENSE_REGION_CAPTION>", "<OPEN_VOCABULARY_DETECTION>"])
def test_a_box_is_scored_over_its_label_and_its_locations(task):
    big, dog = (" big", 0.25), (" dog", 0.04)
    found = scored(task, [START, ("car", 0.5), *BOX, big, dog, *OTHER, END])
    assert_likelihoods(
        found,
        [mean(("car", 0.5), *BOX), mean(big, dog, *OTHER)],
        [0.5, 0.1],
        [mean(*BOX), mean(*OTHER)],
    )


def test_boxes_of_one_label_share_its_tokens_and_have_locations_of_their_own():
    car = [("c", 0.5), ("ar", 0.9)]
    found = scored("<OD>", [START, *car, *BOX, *OTHER, END])
    assert_likelihoods(
        found, [mean(*car, *BOX), mean(*car, *OTHER)], [mean(*car), mean(*car)], [mean(*BOX), mean(*OTHER)]
    )


def test_region_proposals_have_no_label_scores():
    assert_likelihoods(
        scored("<REGION_PROPOSAL>", [START, *BOX, *OTHER, END]),
        [mean(*BOX), mean(*OTHER)],
        None,
        [mean(*BOX), mean(*OTHER)],
    )


def test_a_piece_of_text_is_scored_over_its_text_and_its_quad():
    words = [("HE", 0.5), ("LLO", 0.7)]
    regions = scored("<OCR_WITH_REGION>", [START, *words, *BOX, *OTHER, *BOX, END])
    assert_likelihoods(regions, [mean(*words, *BOX, *OTHER)], [mean(*words)], [mean(*BOX, *OTHER)])


def test_the_separators_between_an_outlines_polygons_count():
    outline = [*BOX, SEP, *OTHER]
    assert scored("<REGION_TO_SEGMENTATION>", [START, *outline, END]).likelihoods == pytest.approx([mean(*outline)])


def test_the_tags_around_an_outline_do_not_count():
    parts = scored("<REGION_TO_SEGMENTATION>", [START, POLY, *BOX, END_POLY, POLY, *OTHER, END_POLY, END])
    assert parts.likelihoods == pytest.approx([mean(*BOX), mean(*OTHER)])


def test_locations_of_incomplete_vertices_and_boxes_at_the_ends_do_not_count():
    odd = ("<loc_1>", 0.01)
    assert scored("<REGION_TO_SEGMENTATION>", [START, odd, SEP, *BOX, odd]).likelihoods == pytest.approx([mean(*BOX)])
    assert scored("<REGION_PROPOSAL>", [START, *BOX, odd]).likelihoods == pytest.approx([mean(*BOX)])


def test_open_vocabulary_answers_may_mix_scores_of_boxes_and_outlines():
    car, dog = ("car", 0.5), ("dog", 0.7)
    found = scored("<OPEN_VOCABULARY_DETECTION>", [START, car, *BOX, dog, POLY, *OTHER, SEP, *BOX, END_POLY, END])
    assert_likelihoods(
        found,
        [mean(car, *BOX), mean(dog, *OTHER, SEP, *BOX)],
        [0.5, 0.7],
        [mean(*BOX), mean(*OTHER, SEP, *BOX)],
    )


@pytest.mark.parametrize("around", ["<s>", "</s>", "<pad>", "<od>", " ", "\n", "<loc_1000>"])
def test_dropped_text_counts_inside_a_label_but_not_around_it(around):
    dropped, big, dog = (around, 0.01), (" big", 0.5), (" dog", 0.9)
    outside = scored("<OD>", [START, dropped, big, dog, dropped, *BOX])
    assert outside.labels == ["big dog"]
    assert_likelihoods(outside, [mean(big, dog, *BOX)], [mean(big, dog)], [mean(*BOX)])
    assert scored("<OD>", [START, big, dropped, dog, *BOX]).label_likelihoods == pytest.approx(
        [mean(big, dropped, dog)]
    )


def test_a_control_token_inside_a_location_shifts_no_score():
    assert_likelihoods(
        scored(
            "<OD>", [("ca", 0.5), ("<s>", 0.01), ("r", 0.6), ("<loc", 0.7), ("<pad>", 0.8), ("_10>", 0.9), *BOX[1:]]
        ),
        [mean(("", 0.5), ("", 0.01), ("", 0.6), ("", 0.7), ("", 0.8), ("", 0.9), *BOX[1:])],
        [mean(("", 0.5), ("", 0.01), ("", 0.6))],
        [mean(("", 0.7), ("", 0.8), ("", 0.9), *BOX[1:])],
    )


def test_a_blank_label_has_the_score_of_its_blanks():
    assert_likelihoods(scored("<OD>", [(" ", 0.5), *BOX]), [mean(("", 0.5), *BOX)], [0.5], [mean(*BOX)])


def test_a_token_that_extends_from_the_label_into_a_location_counts_for_both_and_once_for_the_object():
    found = scored("<OD>", [("Mr", 0.5), (".<", 0.4), ("loc_10>", 0.9), *BOX[1:]])
    assert found.labels == ["Mr."]
    locations = [("", 0.4), ("", 0.9), *BOX[1:]]
    assert_likelihoods(found, [mean(("", 0.5), *locations)], [mean(("", 0.5), ("", 0.4))], [mean(*locations)])


def test_one_token_may_contain_everything():
    assert_likelihoods(scored("<OD>", [("</s>car<loc_1><loc_2><loc_3><loc_4></s>", 0.5)]), [0.5], [0.5], [0.5])


def test_all_tokens_of_a_letter_count():
    text = "日<loc_1><loc_2><loc_3><loc_4>犬<loc_1><loc_2><loc_3><loc_4>"
    probabilities = [0.9, 0.5, 0.2, 0.8, 0.7, 0.6, 0.3]
    found = decode("<OD>", text, SIZE, TokenScores(np.log(probabilities), [1, 2, 3, 31, 32, 33, 62]))
    assert_likelihoods(
        found,
        [(0.9 * 0.5 * 0.2 * 0.8) ** 0.25, (0.7 * 0.6 * 0.3) ** (1 / 3)],
        [(0.9 * 0.5 * 0.2) ** (1 / 3), (0.7 * 0.6 * 0.3) ** (1 / 3)],
        [0.8, 0.3],
    )


def test_a_token_that_adds_nothing_belongs_to_the_next_character():
    text = "\ufffd<loc_1><loc_2><loc_3><loc_4>é<loc_1><loc_2><loc_3><loc_4>"
    probabilities = [0.9, 0.5, 0.8, 0.7, 0.6, 0.3, 0.01]
    found = decode("<OD>", text, SIZE, TokenScores(np.log(probabilities), [0, 3, 31, 31, 33, 61, 61]))
    assert_likelihoods(
        found,
        [(0.9 * 0.5 * 0.8) ** (1 / 3), (0.7 * 0.6 * 0.3) ** (1 / 3)],
        [(0.9 * 0.5) ** 0.5, (0.7 * 0.6) ** 0.5],
        [0.8, 0.3],
    )


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_without_token_scores_a_result_has_no_scores(task):
    result = decode(task, "car<loc_1><loc_2><loc_3><loc_4>", SIZE)
    assert result == without_scores(result)


def test_an_answer_without_objects_has_scores_without_items():
    found = decode("<OD>", "</s>", SIZE, TokenScores([-1], [4]))
    assert found.likelihoods.shape == found.label_likelihoods.shape == found.location_likelihoods.shape == (0,)
    assert decode("<CAPTION>", "", SIZE, TokenScores([0], [0])) == Text("", likelihood=1.0)


# Invalid tokens.


@pytest.mark.parametrize(
    ("log_probabilities", "ends", "message"),
    [
        ([], [], "token_scores.ends: got .*at least one"),
        ([-1, -2], [4], "token_scores.ends: got .*one for each of 2 log-probabilities"),
        ([-1], [2, 4], "token_scores.ends: got .*one for each of 1 log-probabilities"),
        ([], [4], "token_scores.ends: got .*one for each of 0"),
        ([-1, -2], [3, 2], "token_scores.ends: got .*in ascending order"),
        ([-1, -2], [-1, 4], "token_scores.ends: got .*in ascending order"),
        ([-1, nan], [2, 4], "token_scores.log_probabilities: got nan, expected finite numbers, at most 0"),
        ([-1, -inf], [2, 4], "token_scores.log_probabilities: got -inf"),
        ([-1, 0.9], [2, 4], "token_scores.log_probabilities: got 0.9"),
    ],
)
def test_impossible_token_scores_are_rejected(log_probabilities, ends, message):
    with pytest.raises(InvalidArgumentError, match=message):
        TokenScores(log_probabilities, ends)


@pytest.mark.parametrize(
    ("masses", "message"),
    [
        ([], "token_scores.masses: got .*one for each of 2 log-probabilities"),
        ([0.5], "token_scores.masses: got .*one for each of 2 log-probabilities"),
        ([0.5, nan], "token_scores.masses: got nan, expected 0 to 1"),
        ([0.5, -0.1], "token_scores.masses: got -0.1"),
        ([0.5, 1.1], "token_scores.masses: got 1.1"),
        ([0.5, inf], "token_scores.masses: got inf"),
    ],
)
def test_impossible_masses_are_rejected(masses, message):
    with pytest.raises(InvalidArgumentError, match=message):
        TokenScores([-1, -2], [2, 4], masses)


@pytest.mark.parametrize("end", [0, 3, 5, 100])
def test_token_scores_of_another_text_are_rejected(end):
    with pytest.raises(InvalidArgumentError, match=r"token_scores.ends: .*at the text's end, 4 bytes of UTF-8"):
        decode("<CAPTION>", "caé", SIZE, TokenScores([-1], [end]))


def test_a_probability_slightly_above_one_by_rounding_is_one():
    assert decode("<CAPTION>", "dog", SIZE, TokenScores([1e-6], [3])) == Text("dog", likelihood=1.0)


def test_token_scores_are_equal_by_value():
    scores = TokenScores(np.array([-1.0, -2.0]), np.array([1, 3]))
    assert scores == TokenScores((-1.0, -2.0), (1, 3))
    assert hash(scores) == hash(TokenScores([-1, -2], [1, 3]))


def test_token_scores_are_none_if_the_response_has_no_log_probabilities():
    assert TokenScores.of_response(v1.TaskResponse(text="</s><s>dog</s>")) is None
    response = v1.TaskResponse(text="dog", token_log_probabilities=[-0.5], token_ends=[3])
    assert TokenScores.of_response(response) == TokenScores([-0.5], [3])
    response.token_masses.append(0.75)
    assert TokenScores.of_response(response) == TokenScores([-0.5], [3], [0.75])


def test_masses_without_log_probabilities_are_rejected():
    with pytest.raises(InvalidArgumentError, match=r"token_scores\.ends"):
        TokenScores.of_response(v1.TaskResponse(text="dog", token_masses=[0.5]))


# Any text, divided into tokens anywhere.

log_probabilities = st.floats(-30, 0)


@st.composite
def token_scores(draw, text: str) -> TokenScores:
    """Tokens of a text, divided between any bytes; some may be empty."""
    length = len(text.encode("utf-8", "surrogatepass"))
    ends = [*sorted(draw(st.lists(st.integers(0, length), max_size=40))), length]
    return TokenScores(draw(st.lists(log_probabilities, min_size=len(ends), max_size=len(ends))), ends)


def without_scores(result):
    names = [field.name for field in dataclasses.fields(result) if "likelihood" in field.name]
    return dataclasses.replace(result, **dict.fromkeys(names))


def all_scores(result) -> np.ndarray:
    if isinstance(result, Text):
        return np.array([result.likelihood])
    names = ("likelihoods", "label_likelihoods", "location_likelihoods")
    arrays = [getattr(result, name, None) for name in names]
    assert all(array is None or array.shape == (len(result),) for array in arrays)
    return np.concatenate([array for array in arrays if array is not None])


@given(st.data(), st.lists(pieces, max_size=60).map("".join))
def test_any_tokens_change_only_the_scores_and_raise_no_error(data, answer):
    tokens = data.draw(token_scores(answer))
    least, most = (np.float32(exp(bound(tokens.log_probabilities))) for bound in (min, max))
    for task in TASKS:
        result = decode(task, answer, SIZE, tokens)
        assert without_scores(result) == decode(task, answer, SIZE)
        scores = all_scores(result)
        assert ((scores >= 0) & (scores <= 1)).all()
        assert ((scores >= least * (1 - 1e-5)) & (scores <= most * (1 + 1e-5))).all()


labels = st.text(st.sampled_from("ab <é日𝄞"), min_size=1, max_size=6).filter(lambda label: label.strip())
box_texts = st.lists(st.integers(0, 999), min_size=4, max_size=4).map(
    lambda bins: "".join(map("<loc_{}>".format, bins))
)
phrases = st.lists(st.tuples(labels, st.lists(box_texts, min_size=1, max_size=3)), max_size=4)


@given(st.data(), phrases)
def test_a_score_is_over_the_tokens_that_overlap_its_characters(data, phrases):
    text = "</s><s>" + "".join(label + "".join(boxes) for label, boxes in phrases) + "</s>"
    tokens = data.draw(token_scores(text))
    found = decode("<OD>", text, SIZE, tokens)
    spans = [(label, box) for label, *boxes in byte_spans(phrases) for box in boxes]
    assert len(found) == len(spans)
    arrays = (found.label_likelihoods, found.location_likelihoods, found.likelihoods)
    for label_score, location_score, whole_score, (label, box) in zip(*arrays, spans, strict=True):
        label_tokens, box_tokens = overlapping(tokens, label), overlapping(tokens, box)
        for score, chosen in (
            (label_score, label_tokens),
            (location_score, box_tokens),
            (whole_score, label_tokens | box_tokens),
        ):
            chosen_log_probabilities = [tokens.log_probabilities[index] for index in chosen]
            assert score == pytest.approx(exp(np.mean(chosen_log_probabilities)), rel=1e-5)
            assert exp(min(chosen_log_probabilities)) <= score * (1 + 1e-5)
            assert exp(max(chosen_log_probabilities)) >= score * (1 - 1e-5)


def byte_spans(phrases: list[tuple[str, list[str]]]) -> list[list[tuple[int, int]]]:
    """The byte spans of each phrase's label, without surrounding white space, and of its boxes."""
    spans, end = [], len("</s><s>")
    for label, boxes in phrases:
        blanks = len(label) - len(label.lstrip())
        phrase = [(end + blanks, end + blanks + len(label.strip().encode()))]
        end += len(label.encode())
        for box in boxes:
            phrase.append((end, end + len(box)))
            end += len(box)
        spans.append(phrase)
    return spans


def overlapping(tokens: TokenScores, span: tuple[int, int]) -> set[int]:
    start, end = span
    bounds = list(enumerate(pairwise((0, *tokens.ends))))
    empty = {index for index, (begin, stop) in bounds if begin == stop and start <= begin < end}
    return empty | {index for index, (begin, stop) in bounds if begin < stop and begin < end and start < stop}


@pytest.mark.parametrize("piece", ["<loc_1>", "<poly>", "a", "a<loc_1>", "a<loc_1><loc_2><loc_3><loc_4>", "<s>é"])
@pytest.mark.parametrize("form", AnswerForm)
def test_a_megabyte_is_scored_in_linear_time(form, piece):
    task = next(task for task in TASKS if task.answer is form)
    text = piece * (1_000_000 // len(piece))
    ends = [*range(3, len(text.encode()), 3), len(text.encode())]
    start = time.process_time()
    decode(task, text, SIZE, TokenScores([-0.5] * len(ends), ends))
    assert time.process_time() - start < 10  # about a second when linear, hours when quadratic


def test_a_label_of_many_boxes_is_scored_in_linear_time():
    text = "a" * 500_000 + "<loc_1><loc_2><loc_3><loc_4>" * 20_000
    ends = list(range(1, len(text) + 1))
    start = time.process_time()
    found = decode("<OD>", text, SIZE, TokenScores([-0.5] * len(ends), ends))
    assert time.process_time() - start < 10
    np.testing.assert_allclose(found.likelihoods, exp(-0.5), rtol=1e-5)
