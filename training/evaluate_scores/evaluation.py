"""Runs a checkpoint on pictures, and measures the scores of what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isnan

import florence2
import numpy as np
from florence2 import Detections, v1

from training.evaluate_scores.measures import (
    Flags,
    Judged,
    Scores,
    auroc,
    average_precision,
    calibration,
    calibration_error,
    judge,
)
from training.evaluate_scores.pictures import Picture, labels_of

# Enough that the engine's decode batch is always full.
_CONCURRENCY = 24
_AHEAD = 96
THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Figure:
    """A figure of some pictures' scores, and its target if it has one."""

    name: str
    value: float
    target: str = ""
    is_met: bool = True


def run(client: florence2.Client, pictures: Iterable[Picture], prompt: str) -> Iterator[tuple[Picture, Detections]]:
    """Answer the prompt for each picture, in order, by greedy search.

    Raises:
        Florence2Error: a picture cannot be answered.
        ValueError: the answers to the prompt have no boxes.
    """
    request = v1.TaskRequest(prompt=prompt)

    def answered(picture: Picture) -> florence2.Result | florence2.PlanResult:
        return client.run(picture.content, request).result

    with ThreadPoolExecutor(_CONCURRENCY) as threads:
        for chunk in _chunks(pictures, _AHEAD):
            for picture, result in zip(chunk, threads.map(answered, chunk), strict=True):
                if not isinstance(result, Detections):
                    raise ValueError(f"prompt: got {prompt!r}, expected one whose answers are boxes")
                yield picture, result


def judged(answers: Sequence[tuple[Picture, Detections]]) -> list[Judged]:
    """Judge detections. Those whose labels no true object has are left out, because they cannot be judged."""
    labels = set(labels_of([picture for picture, _ in answers]))
    return [
        judge(picture.truth, found[[index for index, label in enumerate(found.labels) if label in labels]])
        for picture, found in answers
    ]


def figures(found: Sequence[Judged]) -> list[Figure]:
    """The figures of some pictures, with the targets for clean and degraded scenes together."""
    labels = sorted({label for each in found for label in each.truth.labels})
    scores = [each.found.scores.astype(np.float64) for each in found]
    likelihoods = [each.found.likelihoods.astype(np.float64) for each in found]
    new, old, is_right = np.concatenate(scores), np.concatenate(likelihoods), flags(found)
    precision = average_precision(found, scores, labels)
    precision_of_old = average_precision(found, likelihoods, labels)
    precision_of_constant = average_precision(found, [np.ones_like(each) for each in scores], labels)
    wrong = float(1 - is_right.mean())
    return [
        Figure("detections", len(new)),
        Figure("wrong detections", wrong, ">= 0.1", wrong >= 0.1),
        _at_least("median score of right detections", _median(new[is_right]), 0.9),
        Figure("the same of likelihoods", _median(old[is_right])),
        _at_least("AUROC", auroc(new, is_right), 0.9),
        Figure("AUROC of likelihoods", auroc(old, is_right)),
        Figure("expected calibration error", error := calibration_error(new, is_right), "<= 0.05", error <= 0.05),
        Figure("expected calibration error of likelihoods", calibration_error(old, is_right)),
        Figure("AP", precision, ">= both below", precision >= precision_of_old and precision > precision_of_constant),
        Figure("AP with likelihoods", precision_of_old),
        Figure("AP with one constant score", precision_of_constant),
    ]


def threshold_rows(found: Sequence[Judged]) -> list[tuple[float, float, float]]:
    """For each threshold: itself, and the precision and recall of the detections whose scores are above it."""
    scores, is_right = all_scores(found), flags(found)
    objects = sum(len(each.truth.labels) for each in found)
    rows = []
    for threshold in THRESHOLDS:
        kept = is_right[scores > threshold]
        rows.append((threshold, float(kept.mean()) if len(kept) else float("nan"), float(kept.sum()) / max(objects, 1)))
    return rows


def calibration_rows(found: Sequence[Judged]) -> list[tuple[int, float, float]]:
    """See `calibration`."""
    return calibration(all_scores(found), flags(found))


def all_scores(found: Sequence[Judged]) -> Scores:
    """The scores of all detections."""
    return np.concatenate([each.found.scores for each in found]).astype(np.float64)


def flags(found: Sequence[Judged]) -> Flags:
    """Which of all detections are right."""
    return np.concatenate([each.is_right for each in found])


def _at_least(name: str, value: float, target: float) -> Figure:
    return Figure(name, value, f">= {target}", not isnan(value) and value >= target)


def _median(values: Scores) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _chunks(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    chunk: list[Picture] = []
    for picture in pictures:
        chunk.append(picture)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
