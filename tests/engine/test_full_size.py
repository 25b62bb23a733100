"""Florence-2-base's full size with random weights: 577 image tokens, 51,328 words, 1,024 positions."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from florence2.errors import InvalidArgumentError
from florence2_engine.request import FinishReason

from benchmarks.checkpoints import make_checkpoint
from tests.engine.served import Served
from tests.engine.test_parity import OPTIONS, assert_parity
from tests.reference import TASKS, Reference, png
from training.sampling import sample_scene
from training.scenes import draw

pytestmark = pytest.mark.slow

IMAGE_TOKENS = 577


@pytest.fixture(scope="module")
def folder(real_processor_folder, tmp_path_factory):
    return make_checkpoint("base", real_processor_folder, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def questions(folder):
    reference = Reference(folder)
    images = [png(draw(sample_scene(seed))) for seed in range(2)]
    combinations = random.Random(3).sample(list(itertools.product(images, TASKS, OPTIONS)), 10)
    return [reference.question(*combination) for combination in combinations]


@pytest.fixture(scope="module")
def served(folder):
    served = Served(folder, slots=6, rows=20, prefill_batch=3)
    yield served
    served.engine.close()


def test_tokens_equal_generate(questions, served):
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(served.answer, questions))
    assert_parity(questions, answers)


def test_the_longest_prompt_and_the_longest_answer_fit(served, questions):
    words = "word " * (1024 - IMAGE_TOKENS - 3)
    answer = served.ask(questions[0].image, {"free_prompt": {"text": words}}, {"min_new_tokens": 1024, "num_beams": 1})
    assert len(answer.hypothesis.log_probabilities) == 1024
    assert answer.hypothesis.finish_reason is FinishReason.LENGTH
    with pytest.raises(InvalidArgumentError, match="at most 447 tokens"):
        served.ask(questions[0].image, {"free_prompt": {"text": words + "word word word"}}, {})
