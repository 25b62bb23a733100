"""Lines and masks on a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

from florence2.drawing.colors import Color, contrast, distances
from florence2.drawing.geometry import Point, Rectangle, bounds
from florence2.drawing.pen import Pen

_TINT = 96  # the opacity of a mask, of 255
_HATCH = 150  # that of a hatch's stripes
# Where a tint changes the color by less than this (in Oklab) on a quarter of the object, the mask is hatched as well.
# The palette's red on the same red is at 0, on white at 0.2.
_VISIBLE = 0.06
_STRIPES = 4  # the period of a hatch, in line widths
_SAMPLES = 64  # per side of a mask's box
_QUAD_PADDING = 0.14  # of a quad's shorter side
_SMOOTHED_PIXELS = 1_000_000


@dataclass(frozen=True)
class _Canvas:
    """A part of a picture for one shape, drawn `scale` times as large, so that its edges are smooth."""

    left: int
    top: int
    width: int
    height: int
    scale: int

    @classmethod
    def around(cls, box: Rectangle, margin: float, size: tuple[int, int]) -> "_Canvas":
        # A shape on the right or lower edge is in the last pixels.
        left = max(0, min(size[0] - 1, floor(box[0] - margin)))
        top = max(0, min(size[1] - 1, floor(box[1] - margin)))
        right, bottom = min(size[0], ceil(box[2] + margin)), min(size[1], ceil(box[3] + margin))
        width, height = max(1, right - left), max(1, bottom - top)
        scale = next((s for s in (4, 2) if width * height * s * s <= _SMOOTHED_PIXELS), 1)
        return cls(left, top, width, height, scale)

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.left + self.width, self.top + self.height

    def shape(self, outlines: Sequence[Sequence[Point]], radius: float, filled: bool) -> Image.Image:
        """A mask: all points at most `radius` pixels from the outlines, and those inside them if they are filled."""
        mask = Image.new("L", (self.width * self.scale, self.height * self.scale))
        canvas = ImageDraw.Draw(mask)
        for outline in outlines:
            points = [((x - self.left) * self.scale - 0.5, (y - self.top) * self.scale - 0.5) for x, y in outline]
            if filled and len(points) > 2:
                canvas.polygon(points, fill=255)
            reach = radius * self.scale
            if reach >= 0.5:
                canvas.line([*points, points[0]], fill=255, width=round(2 * reach))
                for point in points:
                    canvas.circle(point, reach, fill=255)
        return mask if self.scale == 1 else mask.reduce(self.scale)

    def frame(self, size: tuple[int, int], inset: int) -> Image.Image:
        """A mask: all points at least `inset` pixels from the edges of the whole picture."""
        mask = Image.new("L", (self.width, self.height))
        left, top = inset - self.left, inset - self.top
        right, bottom = size[0] - 1 - inset - self.left, size[1] - 1 - inset - self.top
        if right >= left and bottom >= top:
            ImageDraw.Draw(mask).rectangle((left, top, right, bottom), fill=255)
        return mask


def draw_box(picture: Image.Image, box: Rectangle, color: Color, pen: Pen) -> None:
    """Draw a box around what is inside it; at the edges of the picture, its line is inside."""
    left, top = max(0, round(box[0]) - pen.width), max(0, round(box[1]) - pen.width)
    right = min(picture.width, max(round(box[2]), left + pen.width) + pen.width)
    bottom = min(picture.height, max(round(box[3]), top + pen.width) + pen.width)
    left, top = min(left, picture.width - pen.width), min(top, picture.height - pen.width)
    canvas, halo = ImageDraw.Draw(picture), pen.halo
    outer = (left - halo, top - halo, right - 1 + halo, bottom - 1 + halo)
    if halo:
        canvas.rectangle(outer, outline=contrast(color), width=pen.width + 2 * halo)
    canvas.rectangle((left, top, right - 1, bottom - 1), outline=color, width=pen.width)


def draw_around(picture: Image.Image, outline: list[Point], color: Color, pen: Pen) -> None:
    """Draw a line around a quad, outside of it, so that it does not cross the letters inside."""
    gap = pen.halo + quad_padding(outline)
    canvas = _Canvas.around(bounds([outline]), gap + pen.border + 1, picture.size)
    inner, outer = gap, gap + pen.width
    for reach, inside, paint in (
        (outer + pen.halo, inner - pen.halo, contrast(color)),
        (outer, inner, color),
    ):
        hole = ImageChops.multiply(
            canvas.shape([outline], inside, filled=True), canvas.frame(picture.size, round(reach - inside))
        )
        ring = ImageChops.subtract(canvas.shape([outline], reach, filled=True), hole)
        picture.paste(paint, canvas.box, ring)


def quad_padding(outline: list[Point]) -> float:
    """The distance between a quad and the line around it, in pixels.

    Letters extend beyond the quads that the model generates by about a tenth of their height.
    """
    left, top, right, bottom = bounds([outline])
    sides = [float(np.hypot(b[0] - a[0], b[1] - a[1])) for a, b in pairwise(outline)]
    return _QUAD_PADDING * min(right - left, bottom - top, *sides[:2])


def draw_outlines(picture: Image.Image, outlines: list[list[Point]], color: Color, pen: Pen) -> None:
    """Draw a line along polygons; at the edges of the picture, its inner half is visible."""
    canvas = _Canvas.around(bounds(outlines), pen.border + 1, picture.size)
    for width, paint in ((pen.width + 2 * pen.halo, contrast(color)), (pen.width, color)):
        picture.paste(paint, canvas.box, canvas.shape(outlines, width / 2, filled=False))


def fill_mask(picture: Image.Image, outlines: list[list[Point]], color: Color, pen: Pen) -> None:
    """Tint the inside of polygons; where that is hardly visible, because the object has the same color, hatch it."""
    canvas = _Canvas.around(bounds(outlines), 0, picture.size)
    mask = canvas.shape(outlines, 0, filled=True)
    before = _sample(picture, canvas, mask)
    if not len(before):
        return
    picture.paste(color, canvas.box, mask.point(lambda value: value * _TINT // 255))
    after = _sample(picture, canvas, mask)
    if np.quantile(distances(before, after), 0.25) < _VISIBLE:
        stripes = ImageChops.multiply(mask, _hatch(canvas, _STRIPES * pen.border))
        paint = contrast((*np.median(after, axis=0).astype(int).tolist(),))
        picture.paste(paint, canvas.box, stripes.point(lambda value: value * _HATCH // 255))


def _sample(picture: Image.Image, canvas: _Canvas, mask: Image.Image) -> npt.NDArray[np.uint8]:
    """Pixels of the picture in a mask, of shape (N, 3)."""
    size = (min(_SAMPLES, canvas.width), min(_SAMPLES, canvas.height))
    inside = np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 127
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST, box=canvas.box))[inside]


def _hatch(canvas: _Canvas, period: int) -> Image.Image:
    """Diagonal stripes, a third of them inked, in the same places for all masks of a picture."""
    columns = np.arange(canvas.left, canvas.left + canvas.width, dtype=np.int32)
    rows = np.arange(canvas.top, canvas.top + canvas.height, dtype=np.int32)
    distance = (columns[None, :] + rows[:, None]) % period
    ramp = np.clip(period / 6 + 0.5 - np.abs(np.arange(period) - period / 2), 0, 1)  # smooth edges
    return Image.fromarray((255 * ramp).astype(np.uint8)[distance])
