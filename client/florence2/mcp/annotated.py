"""The annotated image of an answer: the result drawn on the image, small enough for a model's context."""

import base64
import io
from dataclasses import replace
from typing import Final

import numpy as np
import PIL.Image
from mcp_types import ImageContent

from florence2.drawing import draw
from florence2.images import shown_image
from florence2.results import Detections, Segmentation, TextRegions

MOST_SIDE: Final = 1568
"""The longest side of an annotated image in pixels. Models that read images scale larger ones down."""
MOST_BYTES: Final = 700_000
"""The largest annotated image file. Some hosts reject tool results above 1 MB, and base64 adds a third to the size."""

_QUALITIES: Final = (90, 75, 60)
_PNG_LEVEL: Final = 3  # higher levels take longer, and photographs do not fit anyway
_SMALLER: Final = 0.7


def annotated(image: bytes, result: Detections | Segmentation | TextRegions) -> ImageContent:
    """Draw a result on its image.

    Args:
        image: the image file of the request.
        result: coordinates in pixels of that image as displayed.

    Returns:
        A PNG file if that is small enough, else a JPEG file; at most `MOST_SIDE` pixels a side, and `MOST_BYTES`.

    Raises:
        OSError: this Pillow cannot read the image; it reads HEIC only with a plug-in such as pi-heif.
    """
    picture = shown_image(image)
    shown = picture.size
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    # Scaled before it is drawn, so that letters and lines stay sharp, and large images cost no more than small ones.
    drawn = draw(picture, _scaled(result, picture.width / shown[0], picture.height / shown[1]))
    data, kind = _encoded(drawn)
    return ImageContent(data=base64.b64encode(data).decode(), mime_type=f"image/{kind}")


def _scaled(
    result: Detections | Segmentation | TextRegions, across: float, down: float
) -> Detections | Segmentation | TextRegions:
    """The result with its coordinates multiplied."""
    factors = np.array([across, down], np.float32)
    match result:
        case Detections():
            polygons = result.polygons and [[each * factors for each in outline] for outline in result.polygons]
            return replace(result, boxes=result.boxes * np.tile(factors, 2), polygons=polygons, image_size=None)
        case Segmentation():
            polygons = [[each * factors for each in outline] for outline in result.polygons]
            return replace(result, polygons=polygons, image_size=None)
        case TextRegions():
            return replace(result, quads=result.quads * np.tile(factors, 4), image_size=None)


def _encoded(picture: PIL.Image.Image) -> tuple[bytes, str]:
    """The least lossy encoding that fits: PNG, then JPEG of decreasing quality, then a smaller image."""
    data = _file(picture, "PNG", compress_level=_PNG_LEVEL)
    if len(data) <= MOST_BYTES:
        return data, "png"
    while True:
        for quality in _QUALITIES:
            data = _file(picture, "JPEG", quality=quality, subsampling=0)
            if len(data) <= MOST_BYTES:
                return data, "jpeg"
        picture = picture.resize((max(1, int(picture.width * _SMALLER)), max(1, int(picture.height * _SMALLER))))


def _file(picture: PIL.Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
