"""Training examples: an image, a prompt and its answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """A prompt about an image, and the true answer.

    Attributes:
        image: the image file.
        prompt: in text form, as in a request: `<OD>`, `<DocVQA>What is the total?`.
        answers: the first one is learned; measures accept each of them.
        origin: where it comes from, for errors: `train.jsonl:3`.
    """

    image: Path
    prompt: str
    answers: tuple[str, ...]
    origin: str


def split(examples: Sequence[Example], fraction: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and validation examples.

    Images are split, not examples: a question about an image of the training data would not be held out.

    Args:
        examples: all examples.
        fraction: of the images that are set aside for validation; at least one image is.
        seed: determines which.
    """
    images = list(dict.fromkeys(example.image for example in examples))
    random.Random(seed).shuffle(images)  # noqa: S311 - seeded on purpose
    held_out = set(images[: max(1, round(fraction * len(images)))])
    return (
        [example for example in examples if example.image not in held_out],
        [example for example in examples if example.image in held_out],
    )
