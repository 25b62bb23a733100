"""What is drawn for each item of a result: outlines inside the picture, a label and a score."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from math import isnan

from florence2.drawing.clusters import is_blank
from florence2.drawing.geometry import Point, Rectangle, bounds, box_inside, polygon_inside
from florence2.results import Detections, Float32Array, Segmentation, TextRegions


class Kind(Enum):
    """How an item is drawn."""

    BOX = auto()
    """A rectangle around it."""
    MASK = auto()
    """Polygons, outlined and filled."""
    TEXT = auto()
    """A line around it, at some distance from its letters."""


@dataclass(frozen=True)
class DrawnItem:
    """An item of which at least a part is inside the picture.

    Attributes:
        kind: how it is drawn.
        outlines: polygons in pixels, clipped to the picture, none of them empty.
        number: its number in the result, from 1.
        label: its label; for an item without one, its number, or empty if it is the only one.
        score: the score in percent; empty if it is not shown.
    """

    kind: Kind
    outlines: list[list[Point]]
    number: int
    label: str
    score: str = ""

    @property
    def bounds(self) -> Rectangle:
        """The box around all outlines."""
        return bounds(self.outlines)


def drawn_items(
    result: Detections | Segmentation | TextRegions, size: tuple[int, int], show_scores: bool
) -> list[DrawnItem]:
    """The items that can be drawn on a picture of that size; those outside of it, or with NaN, are left out."""
    numbered = sum(map(is_blank, result.labels)) > 1
    drawn = []
    for number, (kind, outlines, label, score) in enumerate(_items(result, size), start=1):
        if not any(outlines):
            continue
        named = not is_blank(label)
        percent = percentage(score) if named and show_scores else ""
        text = label if named else str(number) if numbered else ""
        drawn.append(DrawnItem(kind, [outline for outline in outlines if outline], number, text, percent))
    return drawn


def percentage(score: float | None) -> str:
    """A score, 0 to 1, in percent; 100 % from 0.9995 on. None and NaN become an empty string."""
    if score is None or isnan(score):
        return ""
    percent = round(100 * min(max(score, 0.0), 1.0))
    if percent == 0 and score > 0:
        return "<1 %"
    return f"{99 if percent == 100 and score < 0.9995 else percent} %"


def _items(
    result: Detections | Segmentation | TextRegions, size: tuple[int, int]
) -> Iterator[tuple[Kind, list[list[Point]], str, float | None]]:
    match result:
        case Detections():
            for found in result:
                if any(len(polygon) for polygon in found.polygons):
                    yield Kind.MASK, _polygons(found.polygons, size), found.label, found.score
                else:
                    yield Kind.BOX, [_corners(box_inside(found.box, size))], found.label, found.score
        case Segmentation():
            for segment in result:
                yield Kind.MASK, _polygons(segment.polygons, size), segment.label, segment.score
        case TextRegions():
            for region in result:
                yield Kind.TEXT, _polygons([region.quad], size), region.label, region.score


def _polygons(polygons: list[Float32Array], size: tuple[int, int]) -> list[list[Point]]:
    return [polygon_inside(polygon, size) for polygon in polygons]


def _corners(box: Rectangle | None) -> list[Point]:
    if box is None:
        return []
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
