"""Normalization of 8-bit pixels on the device: they take a quarter of the memory and bandwidth of normalized ones."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """What a checkpoint's image processor does to pixels after resizing them.

    Attributes:
        scale: factor applied to the 8-bit values.
        mean, deviation: per channel, of the scaled values.
    """

    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> "Normalization":
        """From a Hugging Face image processor."""
        channels = len(processor.image_mean)
        return cls(
            scale=processor.rescale_factor if processor.do_rescale else 1.0,
            mean=tuple(processor.image_mean) if processor.do_normalize else (0.0,) * channels,
            deviation=tuple(processor.image_std) if processor.do_normalize else (1.0,) * channels,
        )

    def __call__(self, pixels: Tensor) -> Tensor:
        """(images, 3, height, width) 8-bit -> float32, bit for bit what the processor computes."""
        mean, deviation = (
            torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.deviation)
        )
        return ((pixels.double() * self.scale).float() - mean) / deviation
