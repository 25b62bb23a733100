"""Draws the demo's scene and runs every task on it: `python -m training.demo.demo_scene`."""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from training.demo.answers import make_example, tasks_of
from training.demo.evaluate import CHECKPOINT, ROOT, Evaluator, score
from training.demo.scenes import Box, Scene, Shape, Word, draw, ink_box

IMAGE = ROOT / "examples" / "scene.png"


def demo_scene() -> Scene:
    """The scene of the demo, 640 x 480; laid out by hand, so no seed produces it."""
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
    """Run every task on the demo's scene; a table of the answers and their scores."""
    model = Florence2ForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    evaluator = Evaluator(model, Florence2Processor.from_pretrained(checkpoint))
    scene, result = demo_scene(), Table("task", "input", "answer", "score")
    image = evaluator.encode([scene])
    for task in tasks_of(scene):
        example = make_example(scene, task, random.Random(task))
        [answer] = evaluator.answers(image, [example])
        value = score(scene, example, answer, evaluator.processor)
        result.add_row(task, example.text, answer, f"{value.gained / value.possible:.2f}")
    return result


def main() -> None:
    """The command line: draw the scene, run the tasks and print the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the checkpoint's folder")
    arguments = parser.parse_args()
    IMAGE.parent.mkdir(exist_ok=True)
    draw(demo_scene()).save(IMAGE)
    Console().print(answers_table(arguments.checkpoint))


if __name__ == "__main__":
    main()
