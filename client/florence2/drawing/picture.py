"""The entry point: a result and an image become a picture."""

import os
from collections.abc import Sequence
from typing import TypeAlias

from PIL import Image

from florence2.drawing.colors import assigned_colors
from florence2.drawing.items import DrawnItem, Kind, drawn_items
from florence2.drawing.marks import draw_around, draw_box, draw_outlines, fill_mask
from florence2.drawing.pen import Pen
from florence2.drawing.strip import with_strip
from florence2.drawing.tags import draw_tags
from florence2.drawing.typesetting import Typesetter
from florence2.images import ImageSource, shown_image
from florence2.results import Result, Text

_Path: TypeAlias = str | os.PathLike[str]


def draw(
    image: ImageSource,
    result: Result,
    font: _Path | Sequence[_Path] | None = None,
    *,
    show_scores: bool = True,
) -> Image.Image:
    """Draw a result.

    Boxes, quads and polygons are drawn on the image with their labels and scores, in percent. The lines of boxes and
    quads are drawn around them, those of quads at a small distance. Items without a label, such as region proposals,
    show their number in the result instead, counted from 1, unless there is only one; so do text regions whose tag
    would hide other text. Items outside the image or with coordinates that are NaN are left out. A `Text` is written on
    a strip below the image, which makes the picture taller, and a very narrow one wider.

    Letters come from Pillow's own font, and those that it lacks (most but ASCII) from the system's fonts. If no font
    has a letter, a similar one in ASCII or `?` is drawn, and a warning is logged. Arabic and Indic letters join
    correctly if Pillow has Raqm (`PIL.features.check("raqm")`), as its wheels do.

    Args:
        image: the image of the request, in any form that a client accepts. The EXIF orientation of a file is applied,
            that of a PIL image is not; transparency is composited on white. The image is not modified.
        result: coordinates in pixels of that image.
        font: a TrueType or OpenType file, or several, which are tried in their order before all other fonts.
        show_scores: whether scores are drawn beside labels.

    Returns:
        A new RGB image.

    Raises:
        TypeError, InvalidArgumentError: the image is not in a form that a client accepts.
        OSError: the image or the font cannot be read; Pillow reads HEIC only with a plug-in such as pi-heif.
    """
    picture = shown_image(image)
    pen = Pen.fitting(picture.size)
    fonts = [] if font is None else [font] if isinstance(font, str | os.PathLike) else font
    typesetter = Typesetter(pen.letter_height, [os.fspath(path) for path in fonts])
    if isinstance(result, Text):
        return with_strip(picture, result.text, pen, typesetter)
    _draw_items(picture, drawn_items(result, picture.size, show_scores), pen, typesetter)
    return picture


def _draw_items(picture: Image.Image, items: list[DrawnItem], pen: Pen, typesetter: Typesetter) -> None:
    """Masks first, then lines, then labels, so that none hides what is more precise."""
    colors = assigned_colors(item.label for item in items)
    for item in items:
        if item.kind is Kind.MASK:
            fill_mask(picture, item.outlines, colors[item.label], pen)
    for item in items:
        color = colors[item.label]
        match item.kind:
            case Kind.BOX:
                draw_box(picture, item.bounds, color, pen)
            case Kind.TEXT:
                draw_around(picture, item.outlines[0], color, pen)
            case Kind.MASK:
                draw_outlines(picture, item.outlines, color, pen)
    if pen.has_tags:
        draw_tags(picture, items, colors, pen, typesetter)
