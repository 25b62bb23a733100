"""Hugging Face `generate()`, one request at a time: what every answer is held against."""

import io
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import torch
from florence2 import render_prompt
from florence2.v1 import BoundingBox, GenerationOptions, TaskRequest
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


@dataclass(frozen=True)
class Question:
    """A task about an image with options, and what Hugging Face answers.

    `narrowest_lead` is the least by which a token's score led the next best one's, over all steps.
    """

    image: bytes
    request: TaskRequest
    expected: list[int]
    narrowest_lead: float


class Reference:
    """Hugging Face, one request at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = Florence2Processor.from_pretrained(folder)

    def question(self, image: bytes, task: dict, options: dict) -> Question:
        request = TaskRequest(**task, generation=GenerationOptions(**options))
        picture = PIL.Image.open(io.BytesIO(image)).convert("RGB")
        inputs = self.processor(images=picture, text=render_prompt(request, picture.size), return_tensors="pt")
        options = {"max_new_tokens": 1024, **options}
        if options.pop("suppress_bos", False):
            options["bad_words_ids"] = [[self.processor.tokenizer.bos_token_id]]
        generated = self.model.generate(
            **inputs, num_beams=1, early_stopping=False, output_scores=True, return_dict_in_generate=True, **options
        )
        best_two = torch.stack([scores[0].topk(2).values for scores in generated.scores])
        lead = float((best_two[:, 0] - best_two[:, 1]).min())
        return Question(image, request, generated.sequences[0].tolist(), lead)

    def text(self, question: Question) -> str:
        """The expected answer in words, special tokens kept."""
        text: str = self.processor.batch_decode([question.expected])[0]
        return text


def png(picture: PIL.Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
