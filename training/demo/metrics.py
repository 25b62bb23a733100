"""Scores of an answer against the truth. Boxes are (left, top, right, bottom) in pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Corners = tuple[float, float, float, float]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """One answer's contribution to a figure, which is the sum of `gained` / the sum of `possible`."""

    gained: float
    possible: float


@dataclass(frozen=True)
class Found:
    """Labeled bounding boxes, of the truth or of an answer."""

    labels: Sequence[str]
    boxes: Sequence[Corners]


def iou(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


def best_matches(truth: Found, found: Found) -> list[float]:
    """For each true box its IoU with the best box of the same label in the answer; each box is used once."""
    pairs = [
        (iou(true_box, box), i, j)
        for i, (true_label, true_box) in enumerate(zip(truth.labels, truth.boxes, strict=True))
        for j, (label, box) in enumerate(zip(found.labels, found.boxes, strict=True))
        if label == true_label
    ]
    matches, used = [0.0] * len(truth.boxes), set()
    for overlap, i, j in sorted(pairs, reverse=True):
        if matches[i] == 0.0 and j not in used:
            matches[i] = overlap
            used.add(j)
    return matches


def f1(truth: Found, found: Found, threshold: float = 0.5) -> Score:
    """Matching labels and boxes; summed over scenes this is the micro-averaged F1."""
    hits = sum(overlap >= threshold for overlap in best_matches(truth, found))
    return Score(2 * hits, len(truth.boxes) + len(found.boxes))


def mean_iou(truth: Found, found: Found) -> Score:
    """The IoU of each true box; a box missing from the answer counts as 0."""
    return Score(sum(best_matches(truth, found)), len(truth.boxes))


def exact(truth: str, answer: str) -> Score:
    """1 for identical texts, otherwise 0."""
    return Score(float(truth == answer), 1)


def words(truth: str, answer: str) -> Score:
    """Correct words; invented words lower the score."""
    read, true = Counter(answer.split()), Counter(truth.split())
    return Score((read & true).total(), max(read.total(), true.total()))


def mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Mask:
    """Polygons (x1, y1, x2, y2, ...) filled on a canvas of (width, height): a bool array (height, width)."""
    image = Image.new("1", size)
    canvas = ImageDraw.Draw(image)
    for polygon in polygons:
        if len(polygon) >= 6:
            canvas.polygon(polygon, fill=1)
    return np.asarray(image)


def mask_iou(truth: Mask, answer: Mask) -> Score:
    """Intersection over union of two masks."""
    return Score(float((truth & answer).sum() / max((truth | answer).sum(), 1)), 1)
