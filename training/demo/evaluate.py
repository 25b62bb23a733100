"""Evaluates a checkpoint on held-out scenes: `python -m training.demo.evaluate --scenes 1000`."""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from transformers import Florence2ForConditionalGeneration, Florence2Processor
from transformers.modeling_outputs import BaseModelOutput

from training.demo import metrics
from training.demo.answers import TASKS, Example, make_example, tasks_of
from training.demo.batches import image_pixels, padded, prompt_ids
from training.demo.metrics import Found, Score
from training.demo.sampling import HELD_OUT_SEEDS, sample_scene
from training.demo.scenes import Scene, draw

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "model_repository" / "florence2" / "demo_checkpoint"
RUNS = ROOT / "training" / "runs"
LONGEST_ANSWER = 120
MEASURES = {
    "<OD>": "F1 at IoU 0.5",
    "<DENSE_REGION_CAPTION>": "F1 at IoU 0.5",
    "<REGION_PROPOSAL>": "F1 at IoU 0.5",
    "<OPEN_VOCABULARY_DETECTION>": "F1 at IoU 0.5",
    "<OCR_WITH_REGION>": "F1 at IoU 0.5",
    "<CAPTION_TO_PHRASE_GROUNDING>": "mean IoU",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "mean IoU",
    "<REGION_TO_SEGMENTATION>": "mean IoU",
    "<OCR>": "word accuracy",
}
TARGETS = {
    "<CAPTION>": 0.9,
    "<OD>": 0.9,
    "<CAPTION_TO_PHRASE_GROUNDING>": 0.7,
    "<REFERRING_EXPRESSION_SEGMENTATION>": 0.7,
    "<REGION_TO_SEGMENTATION>": 0.7,
    "<OCR>": 0.8,
    "<REGION_TO_CATEGORY>": 0.8,
    "<REGION_TO_DESCRIPTION>": 0.8,
    "<REGION_TO_OCR>": 0.8,
}


@dataclass(frozen=True)
class Figure:
    """One task's result; `target` is None if the task has none."""

    task: str
    measure: str
    value: float
    answers: int
    target: float | None

    @property
    def met(self) -> bool:
        """Whether the target is reached, if there is one."""
        return self.target is None or self.value >= self.target


class Evaluator:
    """Runs a model on scenes with greedy search and otherwise its own generation settings."""

    def __init__(self, model: Florence2ForConditionalGeneration, processor: Florence2Processor) -> None:
        self.model = model.eval()
        self.processor = processor

    @torch.inference_mode()
    def encode(self, scenes: Sequence[Scene]) -> Tensor:
        """The image embeddings (scenes, image tokens, width); each image is encoded once for all tasks."""
        pixels = np.stack([image_pixels(draw(scene), self.processor) for scene in scenes])
        embeddings: Tensor = self.model.get_image_features(torch.from_numpy(pixels)).pooler_output
        return embeddings

    @torch.inference_mode()
    def answers(self, images: Tensor, examples: Sequence[Example]) -> list[str]:
        """The answer to each example about the image at the same index, without padding, start and end tokens."""
        pad = self.processor.tokenizer.pad_token_id
        ids = padded([prompt_ids(example, self.processor) for example in examples], pad)
        embeddings = torch.cat([images, self.model.get_input_embeddings()(ids)], dim=1)
        mask = torch.cat([ids.new_ones(images.shape[:2]), (ids != pad).long()], dim=1)
        encoded = self.model.model.language_model.encoder(inputs_embeds=embeddings, attention_mask=mask)
        generated = self.model.generate(
            encoder_outputs=BaseModelOutput(encoded.last_hidden_state),
            attention_mask=mask,
            num_beams=1,
            early_stopping=False,
            max_new_tokens=LONGEST_ANSWER,
        )
        texts = self.processor.batch_decode(generated, skip_special_tokens=False)
        return [_stripped(text) for text in texts]


def _stripped(text: str) -> str:
    for token in ("<s>", "</s>", "<pad>"):
        text = text.replace(token, "")
    return text


def score(scene: Scene, example: Example, answer: str, processor: Florence2Processor) -> Score:
    """Score an answer by its task's measure."""
    measure = MEASURES.get(example.task, "exact match")
    if measure == "exact match":
        return metrics.exact(example.answer, answer)
    if measure == "word accuracy":
        return metrics.words(example.answer, answer)
    if "SEGMENTATION" in example.task:
        return _segmentation_score(scene, example, answer, processor)
    truth, found = (_found(scene, example.task, text, processor) for text in (example.answer, answer))
    return metrics.f1(truth, found) if measure.startswith("F1") else metrics.mean_iou(truth, found)


def _parsed(scene: Scene, task: str, answer: str, processor: Florence2Processor) -> dict[str, Any]:
    size = (scene.width, scene.height)
    parsed: dict[str, Any] = processor.post_process_generation(text=answer, task=task, image_size=size)[task]
    return parsed


def _found(scene: Scene, task: str, answer: str, processor: Florence2Processor) -> Found:
    """The labeled boxes of an answer; a quad becomes its bounding box."""
    parsed = _parsed(scene, task, answer, processor)
    if task == "<OCR_WITH_REGION>":
        boxes = [(min(q[0::2]), min(q[1::2]), max(q[0::2]), max(q[1::2])) for q in parsed["quad_boxes"]]
        return Found(parsed["labels"], boxes)
    return Found(parsed["labels"] if "labels" in parsed else parsed["bboxes_labels"], parsed["bboxes"])


def _segmentation_score(scene: Scene, example: Example, answer: str, processor: Florence2Processor) -> Score:
    """Compare the polygons of the answer and of the truth, filled at the scene's size."""
    masks = []
    for text in (example.answer, answer):
        parsed = _parsed(scene, example.task, text, processor)
        polygons = [polygon for instance in parsed["polygons"] for polygon in instance]
        masks.append(metrics.mask(polygons, (scene.width, scene.height)))
    return metrics.mask_iou(*masks)


def score_scenes(evaluator: Evaluator, seeds: Sequence[int], chunk: int = 100) -> Iterator[tuple[str, Score]]:
    """Score every task on every scene that it applies to."""
    for start in range(0, len(seeds), chunk):
        scenes = [sample_scene(seed) for seed in seeds[start : start + chunk]]
        images = evaluator.encode(scenes)
        for task in TASKS:
            chosen = [index for index, scene in enumerate(scenes) if task in tasks_of(scene)]
            examples = [make_example(scenes[i], task, random.Random(f"{task} {seeds[start + i]}")) for i in chosen]
            answers = evaluator.answers(images[chosen], examples) if chosen else []
            for index, example, answer in zip(chosen, examples, answers, strict=True):
                yield task, score(scenes[index], example, answer, evaluator.processor)


def figures(scores: Iterator[tuple[str, Score]]) -> list[Figure]:
    """Aggregate the scores into one figure per task."""
    by_task: dict[str, list[Score]] = {task: [] for task in TASKS}
    for task, value in scores:
        by_task[task].append(value)
    return [_figure(task, values) for task, values in by_task.items() if values]


def _figure(task: str, scores: list[Score]) -> Figure:
    value = sum(score.gained for score in scores) / max(sum(score.possible for score in scores), 1)
    return Figure(task, MEASURES.get(task, "exact match"), round(value, 4), len(scores), TARGETS.get(task))


def brief_report(model: Florence2ForConditionalGeneration, processor: Florence2Processor, scenes: int) -> str:
    """All figures on the last held-out scenes, in one line."""
    seeds = HELD_OUT_SEEDS[-scenes:]
    found = figures(score_scenes(Evaluator(model, processor), seeds))
    return "  ".join(f"{figure.task.strip('<>').lower()} {figure.value:.2f}" for figure in found)


def table(found: Sequence[Figure]) -> Table:
    """The figures as a table for a terminal."""
    result = Table("task", "measure", "value", "target", "met", "answers")
    for figure in found:
        target = "" if figure.target is None else f"{figure.target:.2f}"
        met = "" if figure.target is None else ("yes" if figure.met else "no")
        result.add_row(figure.task, figure.measure, f"{figure.value:.3f}", target, met, str(figure.answers))
    return result


def main() -> None:
    """The command line: evaluate and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the checkpoint's folder")
    parser.add_argument("--scenes", type=int, default=1000, help="number of held-out scenes")
    parser.add_argument("--update", action="store_true", help="also write figures.json into the checkpoint")
    arguments = parser.parse_args()
    model = Florence2ForConditionalGeneration.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    evaluator = Evaluator(model, Florence2Processor.from_pretrained(arguments.checkpoint))
    started = time.perf_counter()
    seeds = HELD_OUT_SEEDS[: arguments.scenes]
    scores = track(score_scenes(evaluator, seeds), "answering", total=_count(seeds))
    found = figures(iter(scores))
    Console().print(table(found))
    Console().print(f"{len(seeds)} scenes in {time.perf_counter() - started:.0f} s")
    report = {"scenes": len(seeds), "search": "greedy", "figures": [asdict(figure) for figure in found]}
    folders = [RUNS, *([arguments.checkpoint] if arguments.update else [])]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "figures.json").write_text(json.dumps(report, indent=2) + "\n")


def _count(seeds: Sequence[int]) -> int:
    return sum(len(tasks_of(sample_scene(seed))) for seed in seeds)


if __name__ == "__main__":
    main()
