"""Training batches: scenes drawn on the fly, each asked several questions."""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Florence2Processor

from training.answers import WORD_TASKS, Question, ask, tasks_of
from training.sampling import TRAINING_SEEDS, Limits, sample_scene
from training.scenes import Scene, draw

# Tasks with locations in their answers, or with much to say or to count, are asked more often; those about words by
# the stage.
WEIGHTS = {
    "<CAPTION>": 4.0,
    "<DETAILED_CAPTION>": 2.0,
    "<OD>": 2.0,
    "<DENSE_REGION_CAPTION>": 2.0,
    "<MORE_DETAILED_CAPTION>": 2.0,
    "<CAPTION_TO_PHRASE_GROUNDING>": 1.5,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 1.5,
}

# Label ids, prompt ids, and the picture that the question is about.
Row = tuple[list[int], list[int], int]


@dataclass(frozen=True)
class Group:
    """Questions of about one length: which picture each is about, and padded ids (questions, tokens)."""

    pictures: Tensor
    prompt_ids: Tensor
    label_ids: Tensor


@dataclass(frozen=True)
class Batch:
    """Pictures (scenes, 3, side, side) and the questions about them."""

    pixel_values: Tensor
    groups: list[Group]


def picture_pixels(image: Image.Image, processor: Florence2Processor) -> np.ndarray:
    """What the processor's image processor makes of an RGB picture, (3, side, side), at half its cost."""
    settings = processor.image_processor
    side = (settings.size["width"], settings.size["height"])
    pixels = np.asarray(image.resize(side, Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = np.float32(settings.image_mean), np.float32(settings.image_std)
    return ((pixels - mean) / std).transpose(2, 0, 1)


def prompt_ids(question: Question, processor: Florence2Processor) -> list[int]:
    """`<s>`, the prompt as the processor words it, `</s>`; the image tokens in front are the caller's."""
    [prompt] = processor._construct_prompts(question.task + question.text)
    return processor.tokenizer(f"<s>{prompt}</s>", add_special_tokens=False)["input_ids"]


def label_ids(question: Question, processor: Florence2Processor) -> list[int]:
    """`<s>`, the answer, `</s>`: what the decoder says after its start token."""
    return processor.tokenizer(question.answer)["input_ids"]


def padded(rows: Sequence[Sequence[int]], pad: int) -> Tensor:
    """The rows as one tensor (rows, longest), filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


@dataclass(frozen=True)
class Sampling:
    """How a batch is made up: scenes, questions about each, and groups of questions of one length."""

    scenes: int = 32
    questions: int = 4
    groups: int = 3


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: from step `first` on, how full scenes are and how often the tasks about words come."""

    first: int
    limits: Limits
    reading: float = 3.0


class Batches(Dataset):
    """The batches of a run, `workers` for every step; the same index always gives the same batch."""

    def __init__(self, folder: str, sampling: Sampling, curriculum: Sequence[Stage], workers: int = 1) -> None:
        self.processor = Florence2Processor.from_pretrained(folder)
        self.sampling = sampling
        self.curriculum = curriculum
        self.workers = workers

    def __len__(self) -> int:
        return len(TRAINING_SEEDS) // self.sampling.scenes

    def __getitem__(self, index: int) -> Batch:
        stage = [stage for stage in self.curriculum if index // self.workers >= stage.first][-1]
        seeds = TRAINING_SEEDS[index * self.sampling.scenes : (index + 1) * self.sampling.scenes]
        scenes = [sample_scene(seed, stage.limits) for seed in seeds]
        pixels = np.stack([picture_pixels(draw(scene), self.processor) for scene in scenes])
        return Batch(torch.from_numpy(pixels), self._groups(scenes, stage, random.Random(index)))

    def _groups(self, scenes: list[Scene], stage: Stage, rng: random.Random) -> list[Group]:
        """The batch's questions, sorted by length so that little padding is computed."""
        rows: list[Row] = []
        for picture, scene in enumerate(scenes):
            rows += [self._row(question, picture) for question in self._questions(scene, stage, rng)]
        rows.sort(key=lambda row: (len(row[0]), len(row[1])))
        size = -(-len(rows) // self.sampling.groups)
        return [self._group(rows[start : start + size]) for start in range(0, len(rows), size)]

    def _row(self, question: Question, picture: int) -> Row:
        return label_ids(question, self.processor), prompt_ids(question, self.processor), picture

    def _questions(self, scene: Scene, stage: Stage, rng: random.Random) -> list[Question]:
        tasks, weights = tasks_of(scene), WEIGHTS | dict.fromkeys(WORD_TASKS, stage.reading)
        # The k largest of u^(1/w) are a weighted sample without repetition (Efraimidis and Spirakis, 2006).
        tasks.sort(key=lambda task: -(rng.random() ** (1 / weights.get(task, 1.0))))
        return [ask(scene, task, rng) for task in tasks[: self.sampling.questions]]

    def _group(self, rows: list[Row]) -> Group:
        labels, prompts, pictures = zip(*rows, strict=True)
        pad = self.processor.tokenizer.pad_token_id
        return Group(torch.tensor(pictures), padded(prompts, pad), padded(labels, pad))
