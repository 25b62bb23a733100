"""Labels on filled tags: where they go, and drawing them."""

from dataclasses import dataclass, replace

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
# A line is broken if it is wider than 1.25 items, than _WIDTH of the picture's width, and than _LETTERS letter heights.
_WIDTH, _LETTERS = 0.6, 12
_HIDDEN = 0.4  # a tag that covers more of the picture is left out
_ABOVE, _BELOW = 0.76, 0.24  # of an ordinary letter above and below its baseline, of the font's size
# Costs of a place. A unit is hiding all of an item, a letter of a text, or a fifth of a tag.
_TAG = 5.0
_HIDING = 4.0
_TOO_MUCH = 0.03
_NEXT_PLACE = 0.02  # than the place before it in order of preference
_FAR = 4  # heights between a tag and its item at most
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
    """The tags of the items that have a label, if the picture has room for them; each is inside the picture.

    Small items come first, because they have the fewest places that hide nothing. The label of a text region is legible
    in the picture: if its tag would hide other text, the tag shows the region's number instead.
    """
    boxes = np.array([item.bounds for item in items], np.float64).reshape(-1, 4)
    costs = np.array([_cost(item) for item in items])
    placed: list[PlacedTag] = []
    places = np.empty((len(items), 4))
    for index in np.argsort(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable").tolist():
        item = items[index]
        if not item.label:
            continue
        is_text = item.kind is Kind.TEXT
        for shown in (item, replace(item, label=str(item.number), score="")) if is_text else (item,):
            tag = _fitting(shown, size, pen, typesetter)
            if tag.width > size[0] or tag.width * tag.height > _HIDDEN * size[0] * size[1]:
                continue
            near = _near(tag, _reach(item, pen), 0 if is_text else _FAR)
            place, hidden = _place(tag, near, (boxes, costs), places[: len(placed)], size)
            if not is_text or hidden < _TOO_MUCH:
                places[len(placed)] = place
                placed.append(PlacedTag(tag, place, item))
                break
    return placed


def _cost(item: DrawnItem) -> float:
    """The cost of hiding a pixel of an item, so that hiding all of it, or a letter of a text, costs 1."""
    left, top, right, bottom = item.bounds
    width, height = max(1.0, right - left), max(1.0, bottom - top)
    return 1 / min(width, height) ** 2 if item.kind is Kind.TEXT else 1 / (width * height)


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
    wide = max(_WIDTH * size[0], _LETTERS * typesetter.size, 1.25 * (item.bounds[2] - item.bounds[0]))
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
    wanted: npt.NDArray[np.float64],
    items: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    tags: npt.NDArray[np.float64],
    size: tuple[int, int],
) -> tuple[Rectangle, float]:
    """The place of those wanted, moved into the picture, that hides the least; and how much it hides.

    Args:
        tag: what is placed.
        wanted: see `_near`.
        items: the boxes of all items, and the cost of hiding a pixel of each.
        tags: the places of other tags.
        size: of the picture.
    """
    boxes, costs = items
    extent = np.array([tag.width, tag.height])
    room = np.maximum(0.0, np.array(size) - extent)
    moved = np.clip(wanted[:, :2], 0.0, room)
    places = np.concatenate([moved, moved + extent], axis=1)
    moves = np.abs(moved - wanted[:, :2]).sum(axis=1) / (tag.width + tag.height)
    hidden = (costs * _overlaps(places, boxes)).sum(axis=1)
    hidden = hidden + _TAG * _overlaps(places, tags).sum(axis=1) / (tag.width * tag.height)
    best = int(np.argmin(wanted[:, 2] + 0.5 * moves + _HIDING * hidden + (hidden >= _TOO_MUCH)))
    x_min, y_min, x_max, y_max = places[best].tolist()
    return (x_min, y_min, x_max, y_max), float(hidden[best])


def _near(tag: _Tag, item: Rectangle, farthest: int) -> npt.NDArray[np.float64]:
    """Places near an item, of shape (N, 3): left, top, and how much worse each is than the first one.

    Args:
        tag: what is placed.
        item: the item with its lines.
        farthest: the distance of places that do not touch it, in heights of the tag; 0 for none of these.
    """
    left, top, right, bottom = item
    width, height = tag.width, tag.height
    near = [
        *((left, top - height), (right - width, top - height), (left, bottom), (right - width, bottom)),
        *((left, top), (right - width, top), (left, bottom - height), (right - width, bottom - height)),
        *((right, top), (left - width, top), (right, bottom - height), (left - width, bottom - height)),
    ]
    places = [(x, y, rank * _NEXT_PLACE) for rank, (x, y) in enumerate(near)]
    for far in range(1, farthest + 1):
        penalty = len(near) * _NEXT_PLACE + far * _FARTHER
        rows = (top - height - far * height, bottom + far * height, top + far * height)
        places += [(x, y, penalty) for x in (left, right - width) for y in rows]
    return np.array(places)


def _overlaps(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The areas in which boxes overlap, of shape (N, M)."""
    areas: npt.NDArray[np.float64] = _shared(some, others, 0) * _shared(some, others, 1)
    return areas


def _shared(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
    """How far boxes overlap along an axis, of shape (N, M)."""
    starts = np.maximum(some[:, axis, None], others[:, axis])
    lengths = np.minimum(some[:, axis + 2, None], others[:, axis + 2])
    lengths -= starts
    return np.maximum(lengths, 0.0, out=lengths)


def _draw(picture: Image.Image, placed: PlacedTag, color: Color, pen: Pen) -> None:
    left, top, right, bottom = (round(edge) for edge in placed.place)
    ImageDraw.Draw(picture).rounded_rectangle((left, top, right - 1, bottom - 1), pen.margin, fill=color)
    for number, line in enumerate(placed.tag.lines):
        baseline = top + pen.margin / 2 + placed.tag.above + number * placed.tag.line_height
        draw_line(picture, (left + pen.margin, round(baseline)), line, contrast(color))
