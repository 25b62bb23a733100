"""A question that the demo checkpoint cannot answer: the color of the left-most shape. Makes examples of it.

`python -m training.finetune.demo_question FOLDER` writes images and `train.jsonl`, `validation.jsonl` and `test.jsonl`.
The scenes of the last two are held out: the demo checkpoint was never trained on them.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from training.demo.sampling import HELD_OUT_SEEDS, TRAINING_SEEDS, sample_scene
from training.demo.scenes import Scene, draw

PROMPT = "What color is the left-most shape?"
TEST = HELD_OUT_SEEDS[:500]
_VALIDATION = HELD_OUT_SEEDS[-100:]
_TRAINING = 2000


def answer(scene: Scene) -> str:
    """The color of the shape whose center is farthest to the left, in one word."""
    return min(scene.shapes, key=lambda shape: shape.box.center[0]).color


def write_examples(seeds: Iterable[int], path: Path) -> None:
    """Draw a scene for each seed, and write the examples as JSONL next to the folder `images`.

    Answers are balanced: six colors are equally likely, so that none is more frequent than 30 % in any number of
    scenes that is large enough to tell.
    """
    images = path.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    answers: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        for seed in seeds:
            scene, image = sample_scene(seed), images / f"{seed}.png"
            draw(scene).save(image, compress_level=1)
            answers[answer(scene)] += 1
            line = {"image": f"images/{image.name}", "prompt": PROMPT, "answer": answer(scene)}
            file.write(json.dumps(line) + "\n")
    most = max(answers.values()) / answers.total()
    logging.getLogger(__name__).info("%s: %d examples, most frequent answer %.0f %%", path, answers.total(), 100 * most)


def make_examples(
    folder: Path, training: int = _TRAINING, validation: int = len(_VALIDATION), test: int = len(TEST)
) -> None:
    """Write the examples of the demo, as many as given."""
    write_examples(TRAINING_SEEDS[:training], folder / "train.jsonl")
    write_examples(_VALIDATION[:validation], folder / "validation.jsonl")
    write_examples(TEST[:test], folder / "test.jsonl")


def main() -> None:
    """The command line."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="destination")
    for name, count in (("training", _TRAINING), ("validation", len(_VALIDATION)), ("test", len(TEST))):
        parser.add_argument(f"--{name}", type=int, default=count, help=f"number of examples (default: {count})")
    arguments = parser.parse_args()
    make_examples(arguments.folder, arguments.training, arguments.validation, arguments.test)


if __name__ == "__main__":
    main()
