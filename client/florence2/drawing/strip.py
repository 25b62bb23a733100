"""Text on a strip below a picture."""

from PIL import Image

from florence2.drawing.colors import BLACK, WHITE
from florence2.drawing.pen import Pen
from florence2.drawing.typesetting import Glyph, Typesetter, draw_line, extents, is_leftward, length, wrapped

_LETTERS = 16  # the least width of a strip, in heights of letters


def with_strip(picture: Image.Image, text: str, pen: Pen, typesetter: Typesetter) -> Image.Image:
    """The picture with a text below it, whose lines keep their breaks; the picture itself if there is no text.

    A picture that is too narrow for words gets a white margin on its right.
    """
    width = max(picture.width, _LETTERS * typesetter.size)
    margin = 2 * pen.margin
    lines = [line for part in text.splitlines() for line in wrapped(typesetter.line(part), width - 2 * margin) if line]
    if not lines:
        return picture
    places, bottom = _baselines(lines, picture.height + margin, typesetter.size)
    taller = Image.new("RGB", (width, round(bottom) + margin), WHITE)
    taller.paste(picture)
    for line, baseline in zip(lines, places, strict=True):
        left = width - margin - length(line) if is_leftward(line) else margin
        draw_line(taller, (left, round(baseline)), line, BLACK)
    return taller


def _baselines(lines: list[list[Glyph]], top: float, size: int) -> tuple[list[float], float]:
    """The lines' baselines, and the bottom of the last one: tall letters get more space."""
    places = []
    for line in lines:
        above, below = extents(line)
        places.append(top + max(0.8 * size, above))
        top = places[-1] + max(0.45 * size, below + 0.15 * size)
    return places, top
