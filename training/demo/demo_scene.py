"""Draws the demo's picture and asks the checkpoint everything about it: `python -m training.demo`."""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from training.answers import ask, tasks_of
from training.evaluate import CHECKPOINT, ROOT, Examiner, score
from training.scenes import Box, Scene, Shape, Word, draw, ink_box

PICTURE = ROOT / "examples" / "scene.png"


def demo_scene() -> Scene:
    """The scene of the demo: laid out by hand, 640 x 480, so no seed has it."""
    return Scene(
        width=640,
        height=480,
        background="white",
        shapes=(
            Shape("circle", "red", "large", Box(50, 60, 230, 240)),
            Shape("triangle", "green", "small", Box(355, 325, 450, 420)),
            Shape("square", "blue", "small", Box(480, 190, 570, 280)),
        ),
        words=(_word("CAFE", 92, (60, 345)), _word("OPEN", 100, (310, 55))),
    )


def _word(text: str, font_size: int, corner: tuple[int, int]) -> Word:
    ink, (x, y) = ink_box(text, font_size), corner
    return Word(text, font_size, Box(x, y, x + ink.right - ink.left, y + ink.bottom - ink.top))


def answers_table(checkpoint: Path) -> Table:
    """Every task asked about the demo's scene: the answer and its score."""
    model = Florence2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    examiner = Examiner(model, Florence2Processor.from_pretrained(checkpoint))
    scene, result = demo_scene(), Table("task", "asked with", "answer", "score")
    image = examiner.encode([scene])
    for task in tasks_of(scene):
        question = ask(scene, task, random.Random(task))
        [answer] = examiner.answers(image, [question])
        value = score(scene, question, answer, examiner.processor)
        result.add_row(task, question.text, answer, f"{value.gained / value.possible:.2f}")
    return result


def main() -> None:
    """Draws, asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the checkpoint's folder")
    arguments = parser.parse_args()
    PICTURE.parent.mkdir(exist_ok=True)
    draw(demo_scene()).save(PICTURE)
    Console().print(answers_table(arguments.checkpoint))


if __name__ == "__main__":
    main()
