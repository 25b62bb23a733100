"""Measures of scores: how well they separate right from wrong, whether they are calibrated, and average precision."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from florence2 import Detections
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from training.demo.metrics import Found, iou

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

LEAST_OVERLAP = 0.5
_BINS = 10


@dataclass(frozen=True)
class Judged:
    """The detections of an image, and which of them are right.

    Attributes:
        truth: the true objects.
        found: what the model found. Labels that are not among those of the evaluation are left out.
        is_right: (N,).
    """

    truth: Found
    found: Detections
    is_right: Flags


def judge(truth: Found, found: Detections) -> Judged:
    """Say which detections are right: they have a true object's label, and an IoU of at least 0.5 with its box.

    Each true object makes one detection right, the one that overlaps it most.
    """
    boxes = [tuple(box) for box in found.boxes.tolist()]
    pairs = [
        (iou(true_box, box), true, index)
        for true, (true_label, true_box) in enumerate(zip(truth.labels, truth.boxes, strict=True))
        for index, (label, box) in enumerate(zip(found.labels, boxes, strict=True))
        if label == true_label
    ]
    matched: dict[int, int] = {}
    for overlap, true, index in sorted(pairs, reverse=True):
        if overlap >= LEAST_OVERLAP and true not in matched and index not in matched.values():
            matched[true] = index
    is_right = np.zeros(len(found), bool)
    is_right[list(matched.values())] = True
    return Judged(truth, found, is_right)


def auroc(scores: Scores, is_right: Flags) -> float:
    """The probability that a right detection has a higher score than a wrong one; ties count half. NaN without both."""
    right, wrong = scores[is_right], np.sort(scores[~is_right])
    if not len(right) or not len(wrong):
        return float("nan")
    below, up_to = np.searchsorted(wrong, right, "left"), np.searchsorted(wrong, right, "right")
    return float((below + up_to).mean() / 2 / len(wrong))


def calibration(scores: Scores, is_right: Flags) -> list[tuple[int, float, float]]:
    """For each of ten bins of scores: number of detections, mean score, and share of right ones (NaN if empty)."""
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    members = [bins == index for index in range(_BINS)]
    return [
        (int(own.sum()), float(scores[own].mean()), float(is_right[own].mean())) if own.any() else (0, np.nan, np.nan)
        for own in members
    ]


def calibration_error(scores: Scores, is_right: Flags) -> float:
    """The expected calibration error: the mean difference of a bin's mean score and share of right ones, by count."""
    misses = [count * abs(score - share) for count, score, share in calibration(scores, is_right) if count]
    return float(sum(misses) / len(scores)) if len(scores) else float("nan")


def average_precision(judged: Sequence[Judged], scores: Sequence[Scores], labels: Sequence[str]) -> float:
    """COCO's AP: the mean over IoUs from 0.5 to 0.95 and over labels, by pycocotools.

    Args:
        judged: the images.
        scores: of the detections of each image.
        labels: of the evaluation.
    """
    ids = {label: index for index, label in enumerate(labels, 1)}
    truth = [
        {"image_id": image, "category_id": ids[label], **_rectangle(*box)}
        for image, each in enumerate(judged, 1)
        for label, box in zip(each.truth.labels, each.truth.boxes, strict=True)
    ]
    found = [
        {"image_id": image, "category_id": ids[label], "score": score, **_rectangle(*box)}
        for image, (each, own) in enumerate(zip(judged, scores, strict=True), 1)
        for label, box, score in zip(each.found.labels, each.found.boxes.tolist(), own.tolist(), strict=True)
    ]
    if not found:
        return 0.0
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(1, len(judged) + 1)],
        "categories": [{"id": index, "name": label} for label, index in ids.items()],
        "annotations": [{"id": index, "iscrowd": 0, **each} for index, each in enumerate(truth, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


def _rectangle(left: float, top: float, right: float, bottom: float) -> dict[str, Any]:
    width, height = right - left, bottom - top
    return {"bbox": [left, top, width, height], "area": width * height}
