"""Draws results on images.

Every line has a halo and every label a filled tag, so that they are legible on any background. Line widths and letters
scale with the image. A label has the same color in every run; labels in the same image have different colors as long as
the palette suffices.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from florence2.images import ImageSource, shown_image
from florence2.results import Detections, Float32Array, Result, Segmentation, Text, TextRegions

Color: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Rectangle: TypeAlias = tuple[float, float, float, float]

_PALETTE: tuple[Color, ...] = (
    (230, 57, 70),
    (29, 120, 216),
    (46, 160, 67),
    (255, 183, 3),
    (142, 68, 173),
    (251, 111, 30),
    (0, 187, 198),
    (233, 84, 180),
    (150, 200, 40),
    (121, 85, 60),
    (90, 90, 220),
    (0, 128, 110),
)
_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
_FILL_OPACITY = 90  # of 255


def draw(image: ImageSource, result: Result, font: str | os.PathLike[str] | None = None) -> Image.Image:
    """Draw a result.

    Boxes, quads and polygons are drawn on the image with their labels, and with the scores of `Detections` if there are
    any. Text is drawn on a strip below the image, which makes the picture taller.

    Args:
        image: the image of the request, in any form that a client accepts. The EXIF orientation of a file is applied,
            that of a PIL image is not; transparency is composited on white. The image is not modified.
        result: coordinates in pixels of that image.
        font: a TrueType file. Pillow's own font, the default, contains only ASCII: other letters become empty boxes.

    Returns:
        A new RGB image.

    Raises:
        TypeError, InvalidArgumentError: the image is not in a form that a client accepts.
        OSError: the image or the font cannot be read; Pillow reads HEIC only with a plug-in such as pi-heif.
    """
    picture = shown_image(image)
    pen = _Pen.fitting(picture, font)
    if isinstance(result, Text):
        return _with_strip(picture, result.text, pen)
    return _annotated(picture, list(_annotations(result)), pen)


@dataclass(frozen=True)
class _Annotation:
    """An item to draw: its outlines, each of shape (M, 2) in pixels, its label and its score."""

    outlines: list[Float32Array]
    label: str
    score: float | None = None
    filled: bool = False

    @property
    def tag(self) -> str:
        return _printable(self.label if self.score is None else f"{self.label} {self.score:.2f}")


@dataclass(frozen=True)
class _Pen:
    """Line width and font for the size of a picture."""

    width: int
    font: Font
    letter_height: int

    @classmethod
    def fitting(cls, picture: Image.Image, font: str | os.PathLike[str] | None) -> "_Pen":
        letter_height = max(11, round(max(picture.size) / 45))
        chosen: Font = ImageFont.load_default(letter_height)
        if font is not None:
            chosen = ImageFont.truetype(os.fspath(font), letter_height)
        return cls(width=max(2, round(max(picture.size) / 320)), font=chosen, letter_height=letter_height)

    @property
    def margin(self) -> int:
        """Pixels between letters and the edge of their background."""
        return max(2, self.letter_height // 4)

    @property
    def line_height(self) -> int:
        return self.letter_height + self.margin

    def length(self, text: str) -> float:
        return self.font.getlength(text)


def _annotations(result: Detections | Segmentation | TextRegions) -> Iterator[_Annotation]:
    match result:
        case Detections():
            for box, label, score, polygons, *_ in result:
                yield _Annotation(polygons or [_corners(box)], label, score, filled=bool(polygons))
        case Segmentation():
            for polygons, label, *_ in result:
                yield _Annotation(polygons, label, filled=True)
        case TextRegions():
            for quad, label, *_ in result:
                yield _Annotation([quad.reshape(4, 2)], label)


def _corners(box: Float32Array) -> Float32Array:
    x_min, y_min, x_max, y_max = box
    return np.array([(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)], np.float32)


def _annotated(picture: Image.Image, annotations: list[_Annotation], pen: _Pen) -> Image.Image:
    annotations = [a for a in annotations if any(len(outline) for outline in a.outlines)]
    colors = _colors(a.label for a in annotations)
    picture = _filled(picture, annotations, colors)
    canvas = ImageDraw.Draw(picture)
    for annotation in annotations:
        for outline in annotation.outlines:
            _draw_outline(canvas, outline, colors[annotation.label], pen)
    tags: list[Rectangle] = []
    for annotation in annotations:
        if annotation.tag:
            tags.append(_draw_tag(canvas, annotation, colors[annotation.label], pen, tags))
    return picture


def _colors(labels: Iterable[str]) -> dict[str, Color]:
    """A color for each label, by its checksum; the next free one if another label has that color."""
    taken: dict[int, str] = {}
    for label in sorted(set(labels)):
        start = crc32(label.encode("utf-8", "replace"))
        places = [(start + step) % len(_PALETTE) for step in range(len(_PALETTE))]
        place = next((place for place in places if place not in taken), None)
        taken[len(_PALETTE) + start if place is None else place] = label
    return {label: _PALETTE[place % len(_PALETTE)] for place, label in taken.items()}


def _filled(picture: Image.Image, annotations: list[_Annotation], colors: dict[str, Color]) -> Image.Image:
    """The picture with filled outlines tinted."""
    overlay = Image.new("RGBA", picture.size)
    canvas = ImageDraw.Draw(overlay)
    for annotation in (a for a in annotations if a.filled):
        for outline in (o for o in annotation.outlines if len(o) > 2):
            canvas.polygon(_points(outline), fill=(*colors[annotation.label], _FILL_OPACITY))
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def _draw_outline(canvas: ImageDraw.ImageDraw, outline: Float32Array, color: Color, pen: _Pen) -> None:
    # At the edge of the image, lines are moved inward by half their width, so that they are completely visible.
    inset = pen.width / 2
    points = _points(np.clip(outline, inset, np.array(canvas.im.size) - 1 - inset))
    closed = [*points, *points[:2]]  # beyond the first vertex, so that the last corner has a joint too
    canvas.line(closed, fill=_contrast(color), width=pen.width + 2, joint="curve")
    canvas.line(closed, fill=color, width=pen.width, joint="curve")


def _draw_tag(
    canvas: ImageDraw.ImageDraw, annotation: _Annotation, color: Color, pen: _Pen, others: list[Rectangle]
) -> Rectangle:
    """Draw a label on its tag, near the upper edge of the item; return the tag's place."""
    text = _shortened(annotation.tag, canvas.im.size[0] - 2 * pen.margin, pen)
    place = _place_tag(annotation, pen.length(text) + 2 * pen.margin, canvas.im.size, pen, others)
    canvas.rectangle(place, fill=color)
    origin = (place[0] + pen.margin, (place[1] + place[3]) / 2)
    canvas.text(origin, text, fill=_contrast(color), font=pen.font, anchor="lm")
    return place


def _place_tag(
    annotation: _Annotation, width: float, size: tuple[int, int], pen: _Pen, others: list[Rectangle]
) -> Rectangle:
    """Above the item, else inside it, else below it: inside the image, and clear of other tags if possible."""
    vertices = np.concatenate(annotation.outlines)
    (left, top), (_, bottom) = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    height = pen.letter_height + pen.margin
    levels = [y for y in (top - height, top, bottom - height, bottom) if 0 <= y <= size[1] - height]
    places = [_inside((left, y, left + width, y + height), size) for y in levels]
    places = places or [_inside((left, top, left + width, top + height), size)]
    return next((p for p in places if not any(_overlap(p, other) for other in others)), places[0])


def _inside(place: Rectangle, size: tuple[int, int]) -> Rectangle:
    """The rectangle, moved into the image; if it is too large, its top left corner is inside."""
    left, top, right, bottom = place
    x = max(0, min(left, size[0] - 1 - (right - left)))
    y = max(0, min(top, size[1] - 1 - (bottom - top)))
    return x, y, x + right - left, y + bottom - top


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_strip(picture: Image.Image, text: str, pen: _Pen) -> Image.Image:
    """The picture with text on a strip below it."""
    lines = [line for part in text.splitlines() for line in _wrapped(part, picture.width - 2 * pen.margin, pen)]
    if not lines:
        return picture
    height = len(lines) * pen.line_height + 2 * pen.margin
    taller = Image.new("RGB", (picture.width, picture.height + height), _WHITE)
    taller.paste(picture)
    canvas = ImageDraw.Draw(taller)
    for number, line in enumerate(lines):
        y = picture.height + pen.margin + (number + 0.5) * pen.line_height
        canvas.text((pen.margin, y), line, fill=_BLACK, font=pen.font, anchor="lm")
    return taller


def _wrapped(text: str, width: float, pen: _Pen) -> Iterator[str]:
    """Lines of at most `width` pixels; longer words are split."""
    line = ""
    for word in _printable(text).split():
        if line and pen.length(f"{line} {word}") > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while pen.length(line) > width and len(line) > 1:
            fitting = _fitting_characters(line, width, pen)
            yield line[:fitting]
            line = line[fitting:]
    if line:
        yield line


def _shortened(text: str, width: float, pen: _Pen) -> str:
    if pen.length(text) <= width:
        return text
    return text[: _fitting_characters(text, width - pen.length("..."), pen)] + "..."


def _fitting_characters(text: str, width: float, pen: _Pen) -> int:
    """The number of leading characters that fit into `width` pixels; at least one."""
    count, length = 1, pen.length(text[0])
    while count < len(text) and (length := length + pen.length(text[count])) <= width:
        count += 1
    return count


def _printable(text: str) -> str:
    """The text on one line, with characters that no font contains (control characters, lone surrogates) replaced."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def _points(outline: Float32Array) -> list[tuple[float, float]]:
    return [(x, y) for x, y in outline.tolist()]


def _contrast(color: Color) -> Color:
    """Black or white, whichever is legible on the color (luma of ITU-R BT.601)."""
    red, green, blue = color
    return _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE
