"""Training batches: scenes drawn on the fly, each with several examples."""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Florence2Processor

from training.demo.answers import WORD_TASKS, Example, make_example, tasks_of
from training.demo.sampling import TRAINING_SEEDS, Limits, sample_scene
from training.demo.scenes import Scene, draw

# Tasks with long answers, locations or counting are sampled more often; the weight of tasks about words depends on the
# stage.
WEIGHTS = {
    "<CAPTION>": 4.0,
    "<DETAILED_CAPTION>": 2.0,
    "<OD>": 2.0,
    "<DENSE_REGION_CAPTION>": 2.0,
    "<MORE_DETAILED_CAPTION>": 2.0,
    "<CAPTION_TO_PHRASE_GROUNDING>": 1.5,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 1.5,
}

# An example as label ids, prompt ids and the index of its image.
Encoded = tuple[list[int], list[int], int]


@dataclass(frozen=True)
class Group:
    """Examples of similar length: the image index of each, and padded ids (examples, tokens)."""

    images: Tensor
    prompt_ids: Tensor
    label_ids: Tensor


@dataclass(frozen=True)
class Batch:
    """Images (scenes, 3, side, side) and the examples about them."""

    pixel_values: Tensor
    groups: list[Group]


def image_pixels(image: Image.Image, processor: Florence2Processor) -> npt.NDArray[np.float32]:
    """Preprocess an RGB image exactly as the processor does, (3, side, side), at half the cost."""
    settings = processor.image_processor
    side = (settings.size["width"], settings.size["height"])
    pixels = np.asarray(image.resize(side, Image.Resampling.BICUBIC), dtype=np.float32) / 255
    mean, std = np.float32(settings.image_mean), np.float32(settings.image_std)
    normalized: npt.NDArray[np.float32] = (pixels - mean) / std
    return normalized.transpose(2, 0, 1)


def prompt_ids(example: Example, processor: Florence2Processor) -> list[int]:
    """`<s>`, the prompt in the processor's words, `</s>`; without the image tokens in front."""
    [prompt] = processor._construct_prompts(example.task + example.text)
    ids: list[int] = processor.tokenizer(f"<s>{prompt}</s>", add_special_tokens=False)["input_ids"]
    return ids


def label_ids(example: Example, processor: Florence2Processor) -> list[int]:
    """`<s>`, the answer, `</s>`: the decoder's output after its start token."""
    ids: list[int] = processor.tokenizer(example.answer)["input_ids"]
    return ids


def padded(sequences: Sequence[Sequence[int]], pad: int) -> Tensor:
    """The sequences as one tensor (sequences, longest), padded on the right."""
    longest = max(map(len, sequences))
    return torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in sequences])


@dataclass(frozen=True)
class Sampling:
    """The composition of a batch: scenes, examples about each scene, and groups of examples of similar length."""

    scenes: int = 32
    examples: int = 4
    groups: int = 3


@dataclass(frozen=True)
class Stage:
    """A stage of the curriculum, from step `first` on: how full scenes are, and the weight of tasks about words."""

    first: int
    limits: Limits
    reading: float = 3.0


class Batches(Dataset[Batch]):
    """The batches of a run, `workers` per step; an index always yields the same batch."""

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
        pixels = np.stack([image_pixels(draw(scene), self.processor) for scene in scenes])
        return Batch(torch.from_numpy(pixels), self._groups(scenes, stage, random.Random(index)))

    def _groups(self, scenes: list[Scene], stage: Stage, rng: random.Random) -> list[Group]:
        """The batch's examples, sorted by length to keep padding small."""
        encoded: list[Encoded] = []
        for image, scene in enumerate(scenes):
            encoded += [self._encode(example, image) for example in self._examples(scene, stage, rng)]
        encoded.sort(key=lambda each: (len(each[0]), len(each[1])))
        size = -(-len(encoded) // self.sampling.groups)
        return [self._group(encoded[start : start + size]) for start in range(0, len(encoded), size)]

    def _encode(self, example: Example, image: int) -> Encoded:
        return label_ids(example, self.processor), prompt_ids(example, self.processor), image

    def _examples(self, scene: Scene, stage: Stage, rng: random.Random) -> list[Example]:
        tasks, weights = tasks_of(scene), WEIGHTS | dict.fromkeys(WORD_TASKS, stage.reading)
        # The k largest of u^(1/w) are a weighted sample without replacement (Efraimidis and Spirakis, 2006).
        tasks.sort(key=lambda task: -(rng.random() ** (1 / weights.get(task, 1.0))))
        return [make_example(scene, task, rng) for task in tasks[: self.sampling.examples]]

    def _group(self, encoded: list[Encoded]) -> Group:
        labels, prompts, images = zip(*encoded, strict=True)
        pad = self.processor.tokenizer.pad_token_id
        return Group(torch.tensor(images), padded(prompts, pad), padded(labels, pad))
