"""From 8-bit pixels to what the vision tower reads, on the device: a quarter of the bytes travel and wait."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """What a checkpoint's image processor does to pixels after resizing them.

    Attributes:
        scale: factor of the 8-bit values.
        mean, deviation: by channel, of the scaled values.
    """

    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> "Normalisation":
        """From a Hugging Face image processor."""
        channels = len(processor.image_mean)
        return cls(
            scale=processor.rescale_factor if processor.do_rescale else 1.0,
            mean=tuple(processor.image_mean) if processor.do_normalize else (0.0,) * channels,
            deviation=tuple(processor.image_std) if processor.do_normalize else (1.0,) * channels,
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(images, 3, height, width) of 8 bits -> float32, bit by bit what the processor makes of them."""
        mean, deviation = (
            torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.deviation)
        )
        return ((pixels.double() * self.scale).float() - mean) / deviation
