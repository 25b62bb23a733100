"""Florence-2-base's full size with random weights: 577 image tokens, 51,328 words, 1,024 positions."""

import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from florence2.errors import InvalidArgumentError
from florence2_server.engine.completion import FinishReason

from benchmarks.harness.checkpoints import make_checkpoint
from tests.engine.served import Served
from tests.engine.test_parity import OPTIONS, assert_parity
from tests.reference import TASKS, Reference, png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = pytest.mark.slow

IMAGE_TOKENS = 577


@pytest.fixture(scope="module")
def folder(real_processor_folder, tmp_path_factory):
    return make_checkpoint("base", real_processor_folder, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def cases(folder):
    reference = Reference(folder)
    images = [png(draw(sample_scene(seed))) for seed in range(2)]
    combinations = random.Random(3).sample(list(itertools.product(images, TASKS, OPTIONS)), 10)
    return [reference.case(*combination) for combination in combinations]


@pytest.fixture(scope="module")
def served(folder):
    served = Served(folder, slots=6, rows=20, prefill_batch=3)
    yield served
    served.engine.close()


def test_tokens_equal_generate(cases, served):
    with ThreadPoolExecutor(8) as callers:
        completions = list(callers.map(served.complete, cases))
    assert_parity(cases, completions)


def test_the_longest_prompt_and_the_longest_completion_fit(served, cases):
    words = "word " * (1024 - IMAGE_TOKENS - 3)
    longest = {"min_new_tokens": 1024, "num_beams": 1}
    completion = served.run_task(cases[0].image, {"free_prompt": {"text": words}}, longest)
    assert len(completion.log_probabilities) == 1024
    assert completion.finish_reason is FinishReason.LENGTH
    with pytest.raises(InvalidArgumentError, match="at most 447 tokens"):
        served.run_task(cases[0].image, {"free_prompt": {"text": words + "word word word"}}, {})
