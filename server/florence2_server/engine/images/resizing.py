"""Resizes images to the size that the vision tower reads, as the checkpoint's processor does."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

Pixels: TypeAlias = npt.NDArray[np.uint8]
Resizing: TypeAlias = Callable[[PIL.Image.Image], Pixels]


def resizing_of(processor: Any) -> Resizing:
    """The part of a Hugging Face image processor that comes before rescaling and normalization.

    The processor of every official checkpoint resizes with Pillow, but also copies to arrays and back, which takes half
    as long again. This omits the copies; a processor with another configuration is called as it is.

    Returns:
        a function from an RGB image to pixels, (3, height, width) uint8, bit for bit the processor's.
    """
    if _only_resizes(processor):
        size = (processor.size.width, processor.size.height)
        return partial(_resized, size=size, resample=processor.resample)
    return partial(_processed, processor=processor)


def _only_resizes(processor: Any) -> bool:
    return (
        type(processor) is CLIPImageProcessorPil
        and processor.do_resize
        and not (processor.do_center_crop or getattr(processor, "do_pad", None))
        and isinstance(processor.resample, int)
        and set(dict(processor.size)) == {"height", "width"}  # fields without a value are not in the dict
    )


def _resized(picture: PIL.Image.Image, size: tuple[int, int], resample: int) -> Pixels:
    resized = picture.resize(size, PIL.Image.Resampling(resample))
    pixels = np.empty((3, resized.height, resized.width), np.uint8)
    for channel, name in zip(pixels, "RGB", strict=True):  # takes a third of the time of transposing one array
        channel[:] = np.frombuffer(resized.tobytes("raw", name), np.uint8).reshape(channel.shape)
    return pixels


def _processed(picture: PIL.Image.Image, processor: Any) -> Pixels:
    # Rescaling and normalization run on the device.
    resized = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels: Pixels = np.ascontiguousarray(resized["pixel_values"][0])
    return pixels
