"""Measures of answers: exact match, ANLS, and F1 of labeled boxes at an IoU of 0.5. Each is between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import florence2
from florence2.results import Detections, TextRegions
from florence2.tasks import AnswerForm, task_of_prompt

from training.demo.metrics import Found, f1
from training.finetune.examples import Example

# Overlaps do not depend on the image's size.
_ANY_SIZE = (1000, 1000)
_BOXES = (AnswerForm.LABELED_BOXES, AnswerForm.BOXES, AnswerForm.LABELED_BOXES_OR_POLYGONS, AnswerForm.QUADS)
_LEAST_SIMILARITY = 0.5
_QUAD = 8
_CAPTION = "caption"  # the client's method for captions of three lengths

# From examples and the texts generated for them, special tokens included, to a figure.
Measure = Callable[[Sequence[Example], Sequence[str]], float]


def has_boxes(example: Example) -> bool:
    """Whether the answer consists of labeled boxes or quads, so that F1 measures it."""
    return task_of_prompt(example.prompt).answer in _BOXES


def default_measure(examples: Sequence[Example]) -> str:
    """The name of the measure that fits the answers to all prompts.

    F1 for boxes. The loss for captions and polygons: hardly any two captions are equal, and every other measure would
    be 0 for all checkpoints. Otherwise exact match.
    """
    tasks = {task_of_prompt(example.prompt) for example in examples}
    if all(task.answer in _BOXES for task in tasks):
        return "f1"
    if all(task.client_method == _CAPTION or task.answer is AnswerForm.POLYGONS for task in tasks):
        return "loss"
    return "exact"


def exact_match(examples: Sequence[Example], texts: Sequence[str]) -> float:
    """The share of answers that equal one of the true answers, apart from white space around them."""
    hits = [
        plain(text) in [answer.strip() for answer in example.answers]
        for example, text in zip(examples, texts, strict=True)
    ]
    return sum(hits) / len(hits)


def anls(examples: Sequence[Example], texts: Sequence[str]) -> float:
    """Average normalized Levenshtein similarity, the measure of DocVQA.

    The similarity of an answer to the nearest true one, regardless of case; below 0.5 it counts as 0.
    """
    scores = [
        max(similarity(plain(text), answer) for answer in example.answers)
        for example, text in zip(examples, texts, strict=True)
    ]
    return sum(scores) / len(scores)


def detection_f1(examples: Sequence[Example], texts: Sequence[str]) -> float:
    """Micro-averaged F1: a box counts if its label is right and it overlaps a true box with an IoU of at least 0.5."""
    scores = [
        f1(_found(example, example.answers[0]), _found(example, text))
        for example, text in zip(examples, texts, strict=True)
    ]
    possible = sum(score.possible for score in scores)
    return sum(score.gained for score in scores) / possible if possible else 1.0  # nothing to find, nothing found


def similarity(text: str, answer: str) -> float:
    """1 for equal texts, down to 0; the similarity of ANLS."""
    one, other = text.strip().lower(), answer.strip().lower()
    longest = max(len(one), len(other))
    value = 1 - edit_distance(one, other) / longest if longest else 1.0
    return value if value >= _LEAST_SIMILARITY else 0.0


def edit_distance(one: str, other: str) -> int:
    """The Levenshtein distance: how many characters have to be inserted, deleted or replaced."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, compared in enumerate(other, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != compared))
            diagonal, row[j] = row[j], best
    return row[-1]


def plain(text: str) -> str:
    """A generated text without control tokens and without white space around it."""
    return florence2.decode("", text, _ANY_SIZE).text.strip()  # type: ignore[union-attr]


def _found(example: Example, text: str) -> Found:
    result = florence2.decode(task_of_prompt(example.prompt), text, _ANY_SIZE)
    if isinstance(result, TextRegions):
        quads = result.quads.reshape(-1, _QUAD)
        xs, ys = quads[:, 0::2], quads[:, 1::2]
        boxes = list(zip(xs.min(1), ys.min(1), xs.max(1), ys.max(1), strict=True))
        return Found(list(result.labels), boxes)
    assert isinstance(result, Detections), "only tasks whose answers are boxes are measured by F1"
    return Found(list(result.labels), [tuple(box) for box in result.boxes.tolist()])


MEASURES: dict[str, Measure] = {"exact": exact_match, "anls": anls, "f1": detection_f1}
