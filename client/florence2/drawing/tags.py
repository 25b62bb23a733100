"""Labels on filled tags: where they go, and drawing them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from florence2.drawing.colors import Color, contrast
from florence2.drawing.geometry import Rectangle
from florence2.drawing.items import DrawnItem, Kind
from florence2.drawing.marks import quad_padding
from florence2.drawing.pen import Pen
from florence2.drawing.typesetting import Glyph, Typesetter, draw_line, extents, length, shortened, wrapped

_LINES = 2  # of a tag at most
# A line is broken if it is wider than the item, this part of the picture's width, and so many heights of letters.
_WIDTH, _LETTERS = 0.6, 12
_HIDDEN = 0.4  # a tag that covers more of the picture is left out
_ABOVE, _BELOW = 0.76, 0.24  # of an ordinary letter above and below its baseline, of the font's size
# How much worse a place is that hides all of something.
_OTHER_TAG, _OTHER_TEXT, _OTHER_ITEM, _OWN_ITEM = 20.0, 8.0, 4.0, 3.0
_NEXT_PLACE = 0.02  # than the place before it in order of preference
_FARTHER = 0.15  # than the place one height nearer


@dataclass(frozen=True)
class _Tag:
    """Lines of text with the size of the tag that they need, in pixels."""

    lines: list[list[Glyph]]
    above: float
    width: float
    height: float
    line_height: float


@dataclass(frozen=True)
class PlacedTag:
    """The tag of an item and its place in the picture."""

    tag: _Tag
    place: Rectangle
    item: DrawnItem


def draw_tags(
    picture: Image.Image, items: list[DrawnItem], colors: dict[str, Color], pen: Pen, typesetter: Typesetter
) -> None:
    """Draw the labels and scores of items."""
    for placed in placed_tags(items, picture.size, pen, typesetter):
        _draw(picture, placed, colors[placed.item.label], pen)


def placed_tags(items: list[DrawnItem], size: tuple[int, int], pen: Pen, typesetter: Typesetter) -> list[PlacedTag]:
    """The tags of the items that have a label and are not too small for it; each is inside the picture.

    Small items come first, since they have the fewest places that hide nothing.
    """
    boxes = np.array([_reach(item, pen) for item in items], np.float64).reshape(-1, 4)
    weights = np.array([_OTHER_TEXT if item.kind is Kind.TEXT else _OTHER_ITEM for item in items])
    placed: list[PlacedTag] = []
    for index in np.argsort(_areas(boxes), kind="stable").tolist():
        item = items[index]
        if not item.label.strip():
            continue
        tag = _fitting(item, size, pen, typesetter)
        if tag.width > size[0] or tag.width * tag.height > _HIDDEN * size[0] * size[1]:
            continue
        others = np.delete(boxes, index, axis=0), np.delete(weights, index)
        tags = np.array([other.place for other in placed], np.float64).reshape(-1, 4)
        placed.append(PlacedTag(tag, _place(tag, boxes[index], others, tags, size), item))
    return placed


def _reach(item: DrawnItem, pen: Pen) -> Rectangle:
    """The box around an item and its lines."""
    left, top, right, bottom = item.bounds
    margin = float(pen.border)
    if item.kind is Kind.TEXT:
        margin += pen.halo + quad_padding(item.outlines[0])
    return left - margin, top - margin, right + margin, bottom + margin


def _fitting(item: DrawnItem, size: tuple[int, int], pen: Pen, typesetter: Typesetter) -> _Tag:
    """A tag whose label is broken or shortened so that it fits into the picture; the score is always complete."""
    label, score = _label_and_score(item, typesetter)
    limit = float(size[0] - 2 * pen.margin)
    wide = max(_WIDTH * size[0], _LETTERS * typesetter.size, item.bounds[2] - item.bounds[0])
    lines = wrapped([*label, *score], min(limit, wide))
    if len(lines) > _LINES:
        rest = _after(label, sum(_letters(line) for line in lines[: _LINES - 1]))
        last = shortened(rest, min(limit, wide) - length(score), typesetter.ellipsis())
        lines = [*lines[: _LINES - 1], [*last, *score]]
    inks = [extents(line) for line in lines]
    above = max(_ABOVE * typesetter.size, *(ink[0] for ink in inks))
    below = max(_BELOW * typesetter.size, *(ink[1] for ink in inks))
    line_height = above + below + (pen.margin / 2 if len(lines) > 1 else 0)
    height = above + below + (len(lines) - 1) * line_height + pen.margin
    return _Tag(lines, above, max(map(length, lines)) + 2 * pen.margin, height, line_height)


def _label_and_score(item: DrawnItem, typesetter: Typesetter) -> tuple[list[Glyph], list[Glyph]]:
    """Both in the same font if possible; the score begins with a wide space and is not broken."""
    line = typesetter.line(f"{item.label} {item.score}")
    if not item.score:
        return line, []
    start = len(line) - len(item.score) - 1
    return line[:start], [line[start], line[start], Glyph(item.score, line[-1].face)]


def _letters(line: list[Glyph]) -> int:
    return sum(not glyph.text.isspace() for glyph in line)


def _after(line: list[Glyph], letters: int) -> list[Glyph]:
    """The line without its first letters, and without the spaces between and after them."""
    places = [place for place, glyph in enumerate(line) if not glyph.text.isspace()]
    return line[places[letters] :] if letters < len(places) else []


def _place(
    tag: _Tag,
    own: npt.NDArray[np.float64],
    others: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    tags: npt.NDArray[np.float64],
    size: tuple[int, int],
) -> Rectangle:
    """The place near an item, and inside the picture, that hides the least."""
    left, top, right, bottom = own.tolist()
    wanted = np.array(list(_corners(tag, left, top, right, bottom)))
    extent = np.array([tag.width, tag.height])
    room = np.maximum(0.0, np.array(size) - extent)
    moved = np.clip(wanted[:, :2], 0.0, room)
    places = np.concatenate([moved, moved + extent], axis=1)
    boxes, weights = others
    costs = wanted[:, 2] + 0.5 * np.abs(moved - wanted[:, :2]).sum(axis=1) / (tag.width + tag.height)
    costs = costs + _OTHER_TAG * (_overlaps(places, tags) / (tag.width * tag.height)).sum(axis=1)
    costs = costs + (weights * _overlaps(places, boxes) / _areas(boxes)).sum(axis=1)
    costs = costs + _OWN_ITEM * (_overlaps(places, own[None]) / _areas(own[None])).sum(axis=1)
    x_min, y_min, x_max, y_max = places[np.argmin(costs)].tolist()
    return x_min, y_min, x_max, y_max


def _corners(tag: _Tag, left: float, top: float, right: float, bottom: float) -> Iterator[tuple[float, float, float]]:
    """Left and top of each place that is considered, and how much worse it is than the first one."""
    width, height = tag.width, tag.height
    near = [
        *((left, top - height), (right - width, top - height), (left, bottom), (right - width, bottom)),
        *((left, top), (right - width, top), (left, bottom - height), (right - width, bottom - height)),
        *((right, top), (left - width, top), (right, bottom - height), (left - width, bottom - height)),
    ]
    for rank, (x, y) in enumerate(near):
        yield x, y, rank * _NEXT_PLACE
    for far in range(1, 5):
        for x in (left, right - width):
            for y in (top - height - far * height, bottom + far * height, top + far * height):
                yield x, y, len(near) * _NEXT_PLACE + far * _FARTHER


def _areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    areas: npt.NDArray[np.float64] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.clip(areas, 1.0, None)


def _overlaps(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The areas in which boxes overlap, of shape (N, M)."""
    starts = np.maximum(some[:, None, :2], others[None, :, :2])
    ends = np.minimum(some[:, None, 2:], others[None, :, 2:])
    areas: npt.NDArray[np.float64] = np.clip(ends - starts, 0.0, None).prod(axis=2)
    return areas


def _draw(picture: Image.Image, placed: PlacedTag, color: Color, pen: Pen) -> None:
    left, top, right, bottom = (round(edge) for edge in placed.place)
    ImageDraw.Draw(picture).rounded_rectangle((left, top, right - 1, bottom - 1), pen.margin, fill=color)
    for number, line in enumerate(placed.tag.lines):
        baseline = top + pen.margin / 2 + placed.tag.above + number * placed.tag.line_height
        draw_line(picture, (left + pen.margin, round(baseline)), line, contrast(color))
