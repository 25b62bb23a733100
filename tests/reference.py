"""Hugging Face `generate()`, one request at a time: what every answer is held against."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import PIL.Image
import PIL.ImageOps
import torch
from florence2 import render_prompt
from florence2.v1 import BoundingBox, EarlyStopping, GenerationOptions, TaskRequest
from transformers import Florence2ForConditionalGeneration, Florence2Processor

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

# Larger than rounding errors, by which the scores of beams were seen to differ by 1e-5.
NUDGES = (1e-4, -1e-4)
EARLY_STOPPING = {
    EarlyStopping.EARLY_STOPPING_HEURISTIC: False,
    EarlyStopping.EARLY_STOPPING_FIRST: True,
    EarlyStopping.EARLY_STOPPING_NEVER: "never",
}


@dataclass(frozen=True)
class Question:
    """A task about an image with options, and what Hugging Face answers.

    Attributes:
        expected: the tokens, decoder start token first.
        scores: `compute_transition_scores` of the generated tokens: log-probabilities, after the rules of the search.
        answers_to_nudged_input: what is answered where the input differs by little more than rounding errors.
    """

    image: bytes
    request: TaskRequest
    expected: list[int]
    scores: list[float]
    answers_to_nudged_input: Callable[[], list[list[int]]]

    @cached_property
    def is_decided(self) -> bool:
        """Whether the answer is the same for an input that differs by little more than rounding errors."""
        return all(answer == self.expected for answer in self.answers_to_nudged_input())


def assert_equal_but_for_ties(questions: Sequence[Question], answers: Sequence, expected: Sequence) -> None:
    """Every answer is the expected one; where rounding decides a question, which is the exception, it may be another.

    Random weights come to ties: where two answers are a rounding error apart, no order of additions is the right one.
    """
    different = [
        question for question, answer, wanted in zip(questions, answers, expected, strict=True) if answer != wanted
    ]
    for question in different:
        assert not question.is_decided, question.request
    assert len(different) <= len(questions) / 10, "a tie is the exception"


class Reference:
    """Hugging Face, one request at a time."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval().to(device)
        self.processor = Florence2Processor.from_pretrained(folder)

    def question(self, image: bytes, task: dict, options: dict) -> Question:
        return self.question_of(image, TaskRequest(**task, generation=GenerationOptions(**options)))

    def question_of(self, image: bytes, request: TaskRequest) -> Question:
        options = {field.name: value for field, value in request.generation.ListFields()}
        picture = opened(image)
        inputs = self.processor(images=picture, text=render_prompt(request, picture.size), return_tensors="pt").to(
            self.model.device
        )
        keywords = self._keywords(options)
        expected, scores = self._generate(inputs, keywords)
        return Question(image, request, expected, scores, partial(self._nudged, inputs, keywords))

    def _nudged(self, inputs: dict, keywords: dict) -> list[list[int]]:
        """The answers to the inputs with a little noise, and with the opposite noise."""
        # Beams compare sums over many tokens, so that looking at the leads of single scores would not do.
        pixels = inputs["pixel_values"]
        noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0)).to(pixels.device)
        return [self._generate({**inputs, "pixel_values": pixels + nudge * noise}, keywords)[0] for nudge in NUDGES]

    def _keywords(self, options: dict) -> dict:
        """Our options as keywords of `generate()`."""
        keywords = {"max_new_tokens": 1024, **options}
        if keywords.pop("suppress_bos", False):
            keywords["bad_words_ids"] = [[self.processor.tokenizer.bos_token_id]]
        if "early_stopping" in keywords:
            keywords["early_stopping"] = EARLY_STOPPING[keywords["early_stopping"]]
        return keywords

    def _generate(self, inputs: dict, keywords: dict) -> tuple[list[int], list[float]]:
        output = self.model.generate(**inputs, output_scores=True, return_dict_in_generate=True, **keywords)
        beams = getattr(output, "beam_indices", None)
        scores = self.model.compute_transition_scores(
            output.sequences, output.scores, beams, normalize_logits=beams is None
        )
        return output.sequences[0].tolist(), scores[0].tolist()

    def text(self, question: Question) -> str:
        """The expected answer in words, special tokens kept."""
        text: str = self.processor.batch_decode([question.expected])[0]
        return text


def opened(file: bytes) -> PIL.Image.Image:
    """The first frame of an image file, turned as its EXIF orientation says; its mode is the processor's to convert."""
    return PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(file)))


def png(picture: PIL.Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
