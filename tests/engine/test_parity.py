"""Every answer is token for token what Hugging Face `generate()` gives for that request alone."""

import io
import itertools
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import PIL.Image
import pytest
import torch
from florence2 import render_prompt
from florence2.v1 import BoundingBox, GenerationOptions, TaskRequest
from florence2_adapter.prompts import prompt_parts
from florence2_engine.checkpoint import load
from florence2_engine.config import EngineConfig
from florence2_engine.engine import Engine
from florence2_engine.images import ImageDecoder
from florence2_engine.request import Answer, FinishReason, Request
from florence2_engine.runner import Runner
from florence2_engine.scheduler import Scheduler
from florence2_engine.tokenizer import PromptTokenizer
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from tests.conftest import DEMO_CHECKPOINT
from training.scenes import draw, sample_scene

REGION = BoundingBox(x_min=5, y_min=6, x_max=30.5, y_max=33)
TASKS = [
    {"caption": {}},
    {"detailed_caption": {}},
    {"more_detailed_caption": {}},
    {"object_detection": {}},
    {"dense_region_caption": {}},
    {"region_proposal": {}},
    {"phrase_grounding": {"caption": "A red circle and a blue square."}},
    {"referring_expression_segmentation": {"expression": "the red circle"}},
    {"region_to_segmentation": {"region": REGION}},
    {"open_vocabulary_detection": {"query": "a green triangle"}},
    {"region_to_category": {"region": REGION}},
    {"region_to_description": {"region": REGION}},
    {"ocr": {}},
    {"ocr_with_region": {}},
    {"region_to_ocr": {"region": REGION}},
    {"free_prompt": {"text": "<DocVQA>What is the größte total? <loc_7>"}},
]
OPTIONS = [
    {"max_new_tokens": 120},
    {"max_new_tokens": 1},
    {"max_new_tokens": 2},
    {"max_new_tokens": 23},
    {"max_new_tokens": 40, "min_new_tokens": 30},
    {"max_new_tokens": 60, "no_repeat_ngram_size": 0},
    {"max_new_tokens": 60, "no_repeat_ngram_size": 1},
    {"max_new_tokens": 60, "no_repeat_ngram_size": 2, "suppress_bos": True},
    {"max_new_tokens": 60, "no_repeat_ngram_size": 5, "min_new_tokens": 9},
]


@dataclass(frozen=True)
class Question:
    """A task about an image with options, and what Hugging Face answers."""

    image: bytes
    request: TaskRequest
    expected: list[int]


class Reference:
    """Hugging Face, one request at a time."""

    def __init__(self, folder) -> None:
        self.model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = Florence2Processor.from_pretrained(folder)

    def question(self, image: bytes, task: dict, options: dict) -> Question:
        request = TaskRequest(**task, generation=GenerationOptions(**options))
        picture = PIL.Image.open(io.BytesIO(image)).convert("RGB")
        inputs = self.processor(images=picture, text=render_prompt(request, picture.size), return_tensors="pt")
        options = {"max_new_tokens": 1024, **options}
        if options.pop("suppress_bos", False):
            options["bad_words_ids"] = [[self.processor.tokenizer.bos_token_id]]
        ids = self.model.generate(**inputs, num_beams=1, early_stopping=False, **options)
        return Question(image, request, ids[0].tolist())


class Served:
    """The engine's parts in this process, so that tokens can be compared."""

    def __init__(self, folder, slots: int, prefill_batch: int) -> None:
        config = EngineConfig(checkpoint=str(folder), device="cpu", slots=slots, prefill_batch=prefill_batch)
        checkpoint = load(config)
        self._images = ImageDecoder(checkpoint.image_processor, config.max_image_bytes, config.max_image_pixels)
        self._tokenizer = PromptTokenizer(checkpoint.tokenizer, max_prompt_tokens=447)
        self._defaults = checkpoint.generation
        self.engine = Engine(Runner(checkpoint.model, slots), Scheduler(slots, prefill_batch))
        self.engine.start()

    def answer(self, question: Question) -> Answer:
        image = self._images.decode(question.image)
        prompt_ids = self._tokenizer.encode(prompt_parts(question.request), image.size)
        request = Request(image, prompt_ids, self._defaults.complete(question.request.generation))
        self.engine.submit(request)
        return request.future.result(120)


@pytest.fixture(scope="module", params=["random weights", "demo checkpoint"])
def folder(request):
    if request.param == "demo checkpoint":
        return DEMO_CHECKPOINT
    return request.getfixturevalue("random_checkpoint")


@pytest.fixture(scope="module")
def questions(folder) -> list[Question]:
    """Tasks with sets of options about five images, drawn by lot, and one answer that may take every position."""
    reference = Reference(folder)
    images = [_png(draw(sample_scene(seed))) for seed in range(4)] + [_png(_noise())]
    combinations = random.Random(1).sample(list(itertools.product(images, TASKS, OPTIONS)), 50)
    return [reference.question(*combination) for combination in [*combinations, (images[-1], TASKS[0], {})]]


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_tokens_equal_generate_whatever_shares_the_batch(folder, questions, slots):
    served = Served(folder, slots, prefill_batch=3)
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
    for question, answer in zip(shuffled, answers, strict=True):
        assert list(answer.token_ids) == question.expected, question.request


def test_the_questions_cover_answers_that_end_and_answers_that_are_cut(folder, questions):
    served = Served(folder, slots=8, prefill_batch=4)
    try:
        answers = [served.answer(question) for question in questions]
    finally:
        served.engine.close()
    reasons = [answer.finish_reason for answer in answers]
    assert reasons.count(FinishReason.STOP) >= 5
    assert reasons.count(FinishReason.LENGTH) >= 5
    for question, answer in zip(questions, answers, strict=True):
        whole = len(answer.token_ids) - 1 < (question.request.generation.max_new_tokens or 1024)
        assert answer.finish_reason is FinishReason.STOP or not whole


def _png(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _noise() -> PIL.Image.Image:
    return PIL.Image.frombytes("RGB", (70, 50), random.Random(0).randbytes(70 * 50 * 3))
