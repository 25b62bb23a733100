"""Results in a few lines, for models that are shown only the text of a tool result."""

import json
from collections.abc import Sequence
from typing import Final

import numpy as np

from florence2.client import Answer
from florence2.plan_results import PlanResult
from florence2.result_items import Float32Array
from florence2.results import Detections, Result, Segmentation, Text, TextRegions

_MOST_LINES: Final = 50
_TRUNCATED: Final = "The answer was cut at its length limit: something may be missing."


def summary(answer: Answer) -> str:
    """An answer's text, or a line for each item: its label in quotes, its place in whole pixels, and its score."""
    lines = _lines(answer.result, answer.image_size)
    if len(lines) > _MOST_LINES + 1:
        lines = [*lines[: _MOST_LINES + 1], f"... and {len(lines) - _MOST_LINES - 1} more in the structured content"]
    return "\n".join([*lines, _TRUNCATED] if answer.is_truncated else lines)


def _lines(result: Result | PlanResult, size: tuple[int, int]) -> list[str]:
    match result:
        case Text(text=text):
            return [text]
        case Detections():
            places = [f"box {_whole(box)}" for box in result.boxes]
            return _table("object", result.labels, places, result.scores, size)
        case TextRegions():
            places = [f"quad {_whole(quad)}" for quad in result.quads]
            return _table("piece of text", result.labels, places, result.scores, size)
        case Segmentation():
            places = [_extent(polygons) for polygons in result.polygons]
            return _table("outline", result.labels, places, result.scores, size)
    raise AssertionError("no tool is a cascade")


def _table(
    noun: str, labels: Sequence[str], places: Sequence[str], scores: Float32Array | None, size: tuple[int, int]
) -> list[str]:
    count = len(labels)
    head = f"{count} {noun if count == 1 else _plural(noun)} in an image of {size[0]} x {size[1]} pixels"
    certainty = [""] * count if scores is None else [f", score {score:.2f}" for score in scores]
    # In quotes: a label may be a text in the image, which might otherwise look like the server's own words.
    names = [f"{_quoted(label)}, " if label else "" for label in labels]
    rows = [f"{name}{place}{score}" for name, place, score in zip(names, places, certainty, strict=True)]
    return [f"{head}:" if rows else f"{head}.", *rows]


def _quoted(label: str) -> str:
    """A label in quotes, in one line: other line separators and marks of direction are escaped, too."""
    quoted = json.dumps(label, ensure_ascii=False)
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in quoted)


def _plural(noun: str) -> str:
    first, *rest = noun.split(" ", 1)
    return " ".join([f"{first}s", *rest])


def _extent(polygons: list[Float32Array]) -> str:
    """The box around an outline; the points are in the structured content."""
    points = np.concatenate(polygons) if polygons else np.zeros((0, 2), np.float32)
    if not len(points):
        return "no points"
    corners = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return f"{len(points)} points inside the box {_whole(corners)}"


def _whole(coordinates: Float32Array) -> str:
    return f"[{', '.join(format(each, '.0f') for each in coordinates)}]"
