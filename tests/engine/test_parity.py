"""Every completion is token for token that of Hugging Face `generate()` for the same request alone."""

import io
import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
from florence2_server.engine.completion import Completion, FinishReason

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.served import Served
from tests.reference import TASKS, Case, Reference, assert_equal_except_near_ties, png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

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


def assert_parity(cases: list[Case], completions: list[Completion]) -> None:
    """The completions are those of `generate()`, token for token."""
    tokens = [list(completion.token_ids) for completion in completions]
    assert_equal_except_near_ties(cases, tokens, [case.expected for case in cases])


@pytest.fixture(scope="module", params=["random weights", "demo checkpoint"])
def folder(request):
    if request.param == "demo checkpoint":
        return DEMO_CHECKPOINT
    return request.getfixturevalue("random_checkpoint")


@pytest.fixture(scope="module")
def cases(folder) -> list[Case]:
    """Random combinations of five images, tasks and options, and one whose completion may take every position.

    One image is transparent and one has an EXIF orientation, for which the reference's own processor is the standard.
    """
    reference = Reference(folder)
    images = [png(draw(sample_scene(seed))) for seed in range(2)]
    images += [png(_ink(draw(sample_scene(2)))), _turned(draw(sample_scene(3))), png(_noise())]
    combinations = random.Random(1).sample(list(itertools.product(images, TASKS, OPTIONS)), 42)
    return [reference.case(*combination) for combination in [*combinations, (images[-1], TASKS[0], {})]]


@pytest.mark.parametrize(("slots", "encode_ahead"), [(1, "0"), (4, "1"), (16, "0")])
def test_tokens_equal_generate_whatever_shares_the_batch(folder, cases, slots, encode_ahead):
    rows = max(8, 2 * slots)
    served = Served(folder, slots=slots, rows=rows, prefill_batch=3, image_batch=2, encode_ahead=encode_ahead)
    arrivals = random.Random(slots)
    shuffled = arrivals.sample(cases, len(cases))

    def complete(case: Case) -> Completion:
        time.sleep(arrivals.uniform(0, 0.1))
        return served.complete(case)

    try:
        with ThreadPoolExecutor(2 * slots) as callers:
            completions = list(callers.map(complete, shuffled))
    finally:
        served.engine.close()
    assert_parity(shuffled, completions)


def test_the_cases_cover_completions_that_end_and_completions_that_are_cut_off(folder, cases):
    served = Served(folder, slots=8, prefill_batch=4)
    try:
        completions = [served.complete(case) for case in cases]
    finally:
        served.engine.close()
    reasons = [completion.finish_reason for completion in completions]
    assert reasons.count(FinishReason.STOP) >= 5
    assert reasons.count(FinishReason.LENGTH) >= 5
    for case, completion in zip(cases, completions, strict=True):
        whole = len(completion.token_ids) - 1 < (case.request.generation.max_new_tokens or 1024)
        assert completion.finish_reason is FinishReason.STOP or not whole


def _ink(scene: PIL.Image.Image) -> PIL.Image.Image:
    """The scene in black on a transparent background: only its alpha tells what it shows."""
    ink = PIL.Image.new("RGBA", scene.size)
    ink.putalpha(scene.convert("L").point(lambda gray: 255 - gray))
    return ink


def _turned(scene: PIL.Image.Image) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    file = io.BytesIO()
    scene.save(file, "PNG", exif=exif)
    return file.getvalue()


def _noise() -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", (70, 50), random.Random(0).randbytes(70 * 50 * 3))


def test_log_probabilities_equal_the_scores_of_generate_if_no_rule_intervened(folder):
    reference = Reference(folder)
    image = png(draw(sample_scene(1)))
    free = {"no_repeat_ngram_size": 0, "max_new_tokens": 25}
    cases = [reference.case(image, task, {**free, "num_beams": beams}) for task in TASKS[:6] for beams in (1, 4)]
    served = Served(folder)
    try:
        completions = [served.complete(case) for case in cases]
    finally:
        served.engine.close()
    compared = 0
    for case, completion in zip(cases, completions, strict=True):
        if list(completion.token_ids) != case.expected:
            assert case.is_near_tie, case.request
            continue
        ours, theirs = completion.log_probabilities, case.scores
        assert len(ours) == len(theirs) == len(case.expected) - 1
        forced_end = completion.finish_reason is FinishReason.LENGTH
        free_tokens = slice(1, -1 if forced_end else None)  # the first token is forced, and the end at the length limit
        assert np.allclose(ours[free_tokens], theirs[free_tokens], atol=1e-4)
        compared += len(theirs[free_tokens])
    assert compared > 50
