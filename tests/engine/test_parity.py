"""Every answer is token for token what Hugging Face `generate()` gives for that request alone."""

import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
from florence2_engine.request import Answer, FinishReason

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.served import Served
from tests.reference import TASKS, Question, Reference, assert_equal_but_for_ties, png
from training.sampling import sample_scene
from training.scenes import draw

HEURISTIC, FIRST, NEVER = 1, 2, 3  # florence2.v1.EarlyStopping

OPTIONS = [
    {"max_new_tokens": 120},
    {"max_new_tokens": 1},
    {"max_new_tokens": 2, "num_beams": 1},
    {"max_new_tokens": 23, "num_beams": 1},
    {"max_new_tokens": 40, "num_beams": 1, "min_new_tokens": 30},
    {"max_new_tokens": 60, "num_beams": 1, "no_repeat_ngram_size": 0},
    {"max_new_tokens": 60, "num_beams": 1, "no_repeat_ngram_size": 1},
    {"max_new_tokens": 60, "num_beams": 1, "no_repeat_ngram_size": 2, "suppress_bos": True},
    {"max_new_tokens": 60, "num_beams": 1, "no_repeat_ngram_size": 5, "min_new_tokens": 9},
    {"max_new_tokens": 1, "num_beams": 4},
    {"max_new_tokens": 2, "num_beams": 3},
    {"max_new_tokens": 60, "num_beams": 2, "early_stopping": HEURISTIC},
    {"max_new_tokens": 60, "num_beams": 3, "early_stopping": FIRST},
    {"max_new_tokens": 30, "num_beams": 3, "early_stopping": NEVER},
    {"max_new_tokens": 40, "num_beams": 3, "early_stopping": NEVER, "length_penalty": 2.0},
    {"max_new_tokens": 40, "num_beams": 4, "early_stopping": HEURISTIC, "length_penalty": 0.0},
    {"max_new_tokens": 40, "num_beams": 5, "early_stopping": HEURISTIC, "length_penalty": -1.0},
    {"max_new_tokens": 40, "num_beams": 3, "early_stopping": FIRST, "length_penalty": 0.6, "no_repeat_ngram_size": 0},
    {"max_new_tokens": 30, "num_beams": 8, "early_stopping": HEURISTIC, "suppress_bos": True},
    {"max_new_tokens": 30, "num_beams": 2, "early_stopping": NEVER, "no_repeat_ngram_size": 1, "min_new_tokens": 25},
    {"max_new_tokens": 40, "num_beams": 1, "repetition_penalty": 1.3},
    {"max_new_tokens": 30, "num_beams": 3, "repetition_penalty": 0.8, "early_stopping": HEURISTIC},
    {"max_new_tokens": 25, "num_beams": 6, "early_stopping": FIRST, "no_repeat_ngram_size": 2, "min_new_tokens": 10},
]


def assert_parity(questions: list[Question], answers: list[Answer]) -> None:
    """Token for token."""
    tokens = [list(answer.hypothesis.token_ids) for answer in answers]
    assert_equal_but_for_ties(questions, tokens, [question.expected for question in questions])


@pytest.fixture(scope="module", params=["random weights", "demo checkpoint"])
def folder(request):
    if request.param == "demo checkpoint":
        return DEMO_CHECKPOINT
    return request.getfixturevalue("random_checkpoint")


@pytest.fixture(scope="module")
def questions(folder) -> list[Question]:
    """Tasks with sets of options about five images, drawn by lot, and one answer that may take every position."""
    reference = Reference(folder)
    images = [png(draw(sample_scene(seed))) for seed in range(4)] + [png(_noise())]
    combinations = random.Random(1).sample(list(itertools.product(images, TASKS, OPTIONS)), 42)
    return [reference.question(*combination) for combination in [*combinations, (images[-1], TASKS[0], {})]]


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_tokens_equal_generate_whatever_shares_the_batch(folder, questions, slots):
    served = Served(folder, slots=slots, rows=max(8, 2 * slots), prefill_batch=3, image_batch=2)
    arrivals = random.Random(slots)
    shuffled = arrivals.sample(questions, len(questions))

    def ask(question: Question) -> Answer:
        time.sleep(arrivals.uniform(0, 0.1))
        return served.answer(question)

    try:
        with ThreadPoolExecutor(2 * slots) as callers:
            answers = list(callers.map(ask, shuffled))
    finally:
        served.engine.close()
    assert_parity(shuffled, answers)


def test_the_questions_cover_answers_that_end_and_answers_that_are_cut(folder, questions):
    served = Served(folder, slots=8, prefill_batch=4)
    try:
        answers = [served.answer(question) for question in questions]
    finally:
        served.engine.close()
    reasons = [answer.hypothesis.finish_reason for answer in answers]
    assert reasons.count(FinishReason.STOP) >= 5
    assert reasons.count(FinishReason.LENGTH) >= 5
    for question, answer in zip(questions, answers, strict=True):
        whole = len(answer.hypothesis.token_ids) - 1 < (question.request.generation.max_new_tokens or 1024)
        assert answer.hypothesis.finish_reason is FinishReason.STOP or not whole


def _noise() -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", (70, 50), random.Random(0).randbytes(70 * 50 * 3))


def test_scores_are_those_of_generate_where_no_rule_intervened(folder):
    reference = Reference(folder)
    image = png(draw(sample_scene(1)))
    free = {"no_repeat_ngram_size": 0, "max_new_tokens": 25}
    questions = [
        reference.question(image, task, {**free, "num_beams": beams}) for task in TASKS[:6] for beams in (1, 4)
    ]
    served = Served(folder)
    try:
        answers = [served.answer(question) for question in questions]
    finally:
        served.engine.close()
    compared = 0
    for question, answer in zip(questions, answers, strict=True):
        if list(answer.hypothesis.token_ids) != question.expected:
            assert not question.is_decided, question.request
            continue
        ours, theirs = answer.hypothesis.log_probabilities, question.scores
        assert len(ours) == len(theirs) == len(question.expected) - 1
        forced_end = answer.hypothesis.finish_reason is FinishReason.LENGTH
        free_tokens = slice(1, -1 if forced_end else None)  # the first is forced, and the end where it was cut
        assert np.allclose(ours[free_tokens], theirs[free_tokens], atol=1e-4)
        compared += len(theirs[free_tokens])
    assert compared > 50
