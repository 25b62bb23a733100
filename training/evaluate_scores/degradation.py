"""Degraded images: noise, blur or occlusion, with a severity that depends on a seed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# At full severity. Chosen on other scenes than the evaluated ones, so that more than a tenth of the demo checkpoint's
# detections in clean and degraded scenes are wrong.
_NOISE = 500.0  # standard deviation, in levels of 0 to 255
_BLUR = 0.035  # radius, as a part of the image's shorter side
_PATCH = 0.4  # longest side of a patch, as a part of the image's shorter side
_PATCHES = 6


def degraded(image: Image.Image, seed: int) -> Image.Image:
    """The image with noise, blur or occlusion, one of them in each third of the seeds; deterministic.

    The severity is uniform, from nothing to values at which most objects are beyond recognition. Patches have the color
    of the image's top left pixel, so that they hide parts of objects and add none.
    """
    rng = np.random.default_rng(seed)
    severity = rng.uniform()
    return (_noisy, _blurred, _occluded)[seed % 3](image, severity, rng)


def _noisy(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    noise = rng.normal(0, severity * _NOISE, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def _blurred(image: Image.Image, severity: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(severity * _BLUR * min(image.size)))


def _occluded(image: Image.Image, severity: float, rng: np.random.Generator) -> Image.Image:
    occluded = image.copy()
    canvas = ImageDraw.Draw(occluded)
    for _ in range(_PATCHES):
        width, height = rng.uniform(0, severity * _PATCH, 2) * min(image.size)
        left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
        canvas.rectangle((left, top, left + width, top + height), image.getpixel((0, 0)))
    return occluded
