"""Conversion between pixels and location tokens.

Florence-2 writes positions in an image as location tokens `<loc_0>` to `<loc_999>`: each side of the image is divided
into 1,000 bins, regardless of the image's size. A bin decodes to its center, so a decoded position is never on the
image's edge.

Pixels are those of the image as displayed, x to the right and y down, as in `florence2/v1/geometry.proto`.
"""

from collections.abc import Iterable
from math import isfinite
from numbers import Real
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from florence2 import v1
from florence2.errors import InvalidArgumentError, wrong_type

LOCATION_BINS = 1000
"""Number of bins along each side of an image."""

REGION_SLACK_PIXELS = 1
"""How far a region's edges may lie outside the image, in pixels. They are clamped to the image."""

ImageSizeLike: TypeAlias = tuple[int, int] | v1.ImageSize
"""An image's size as displayed, in pixels: `(width, height)`, like Pillow's `Image.size`, or the message."""


def width_and_height(image_size: ImageSizeLike) -> tuple[int, int]:
    """Width and height of an image in pixels.

    Raises:
        TypeError: `image_size` is not two numbers.
        InvalidArgumentError: a side is shorter than one pixel.
    """
    sides = (image_size.width, image_size.height) if isinstance(image_size, v1.ImageSize) else image_size
    accepted = "(width, height) in pixels, or an ImageSize"
    try:
        width, height = sides
    except (TypeError, ValueError):
        raise wrong_type("image_size", image_size, accepted) from None
    if not (isinstance(width, Real) and isinstance(height, Real)):
        raise wrong_type("image_size", image_size, accepted)
    if width < 1 or height < 1:
        raise InvalidArgumentError.of_field("image_size", (width, height), "at least 1 x 1 pixels")
    return width, height


def known_size(image_size: ImageSizeLike) -> tuple[int, int] | None:
    """Width and height in pixels; None if a side is shorter than one pixel, as in a message without a size.

    Raises:
        TypeError: `image_size` is not two numbers.
    """
    try:
        width, height = width_and_height(image_size)
    except InvalidArgumentError:
        return None
    return int(width), int(height)


def bins_to_pixels(bins: npt.ArrayLike, image_size: ImageSizeLike) -> npt.NDArray[np.float32]:
    """The centers of bins.

    Computed in float32, in the same order of operations as in Hugging Face's processor, so that the integer part of
    every coordinate equals the processor's even if a center is close to a whole number.

    Args:
        bins: integers 0 to 999 of shape (N, 2), x and y.
        image_size: the size of the bins' image.

    Returns:
        Pixels, shape (N, 2), x and y.
    """
    bin_extent = np.array(width_and_height(image_size)) / LOCATION_BINS
    centers = np.asarray(bins, dtype=np.float32).reshape(-1, 2) + np.float32(0.5)
    return centers * bin_extent.astype(np.float32)


def pixels_to_bins(pixels: npt.ArrayLike, image_size: ImageSizeLike) -> npt.NDArray[np.int64]:
    """The bins that contain points; for a point outside the image, the nearest bin.

    Args:
        pixels: finite coordinates of shape (N, 2), x and y.
        image_size: the size of the points' image.

    Returns:
        Integers 0 to 999, shape (N, 2), x and y.
    """
    extent = np.array(width_and_height(image_size), dtype=np.float64)
    bins = np.floor(np.asarray(pixels, dtype=np.float64).reshape(-1, 2) * LOCATION_BINS / extent)
    bins_inside: npt.NDArray[np.int64] = np.clip(bins, 0, LOCATION_BINS - 1).astype(np.int64)
    return bins_inside


def check_region(region: v1.BoundingBox, field: str = "region") -> None:
    """Check a region as far as is possible without its image.

    Args:
        region: a box in pixels.
        field: the region's full path for errors, e.g. `"region_to_ocr.region"`.

    Raises:
        InvalidArgumentError: a coordinate is not finite or more than `REGION_SLACK_PIXELS` beyond the left or top edge,
            or the box is empty or inverted.
    """
    for side in ("x_min", "y_min", "x_max", "y_max"):
        value = getattr(region, side)
        if not (isfinite(value) and value >= -REGION_SLACK_PIXELS):
            limit = f"a finite number of pixels, at least {-REGION_SLACK_PIXELS}"
            raise InvalidArgumentError.of_field(f"{field}.{side}", value, limit)
    for axis in ("x", "y"):
        low, high = getattr(region, f"{axis}_min"), getattr(region, f"{axis}_max")
        if low >= high:
            raise InvalidArgumentError.of_field(f"{field}.{axis}_max", high, f"more than {axis}_min, which is {low}")
        if high <= 0:
            raise InvalidArgumentError.of_field(f"{field}.{axis}_max", high, "more than 0, the image's edge")


def usable_regions(boxes: npt.NDArray[np.float32], image_size: ImageSizeLike | None = None) -> npt.NDArray[np.bool_]:
    """Whether a request can have each of the boxes as its region.

    Args:
        boxes: pixels of shape (N, 4): x_min, y_min, x_max, y_max.
        image_size: the size of the boxes' image; None if unknown: then only what `check_region` checks is known.

    Returns:
        Booleans of shape (N,): whether `region_bins` accepts the box.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    is_region = np.isfinite(boxes).all(axis=1) & (low >= -REGION_SLACK_PIXELS).all(axis=1)
    usable: npt.NDArray[np.bool_] = is_region & (low < high).all(axis=1) & (high > 0).all(axis=1)
    if image_size is not None:
        extent = np.array(width_and_height(image_size))
        usable &= (low < extent).all(axis=1) & (high <= extent + REGION_SLACK_PIXELS).all(axis=1)
    return usable


def region_bins(region: v1.BoundingBox, image_size: ImageSizeLike, field: str = "region") -> tuple[int, int, int, int]:
    """The bins of a region's left, top, right and bottom edges.

    Edges up to `REGION_SLACK_PIXELS` outside the image are clamped to it: detectors and float arithmetic produce such
    boxes for objects at the image's edge.

    Args:
        region: a box in pixels.
        image_size: the size of the region's image.
        field: the region's full path for errors, e.g. `"region_to_ocr.region"`.

    Raises:
        InvalidArgumentError: as for `check_region`, or the region extends more than `REGION_SLACK_PIXELS` beyond the
            right or bottom edge, or is entirely outside the image.
    """
    check_region(region, field)
    width, height = width_and_height(image_size)
    for axis, limit, extent in (("x", width, "width"), ("y", height, "height")):
        low, high = getattr(region, f"{axis}_min"), getattr(region, f"{axis}_max")
        if low >= limit:
            requirement = f"less than {limit}, the image's {extent}"
            raise InvalidArgumentError.of_field(f"{field}.{axis}_min", low, requirement)
        if high > limit + REGION_SLACK_PIXELS:
            requirement = f"at most {limit + REGION_SLACK_PIXELS}, the image's {extent} plus a pixel"
            raise InvalidArgumentError.of_field(f"{field}.{axis}_max", high, requirement)
    # Points outside the image get the nearest bin, which clamps them.
    corners = [(region.x_min, region.y_min), (region.x_max, region.y_max)]
    (left, top), (right, bottom) = pixels_to_bins(corners, (width, height)).tolist()
    return left, top, right, bottom


def location_tokens(bins: Iterable[int]) -> str:
    """The location tokens of bins: `"<loc_52><loc_332>"` for 52 and 332."""
    return "".join(f"<loc_{location}>" for location in bins)
