"""Transfers of small arrays of numbers from the host to the device."""

from typing import Any

import torch
from torch import Tensor


def to_device(values: Any, device: torch.device) -> Tensor:
    """A tensor of numbers on the device, transferred in order with the work queued there, without blocking the host.

    `torch.tensor(values, device=...)` blocks until a GPU has finished all queued work.

    Args:
        values: nested lists of integers, or a numpy array.
        device: the tensor's device.
    """
    if device.type != "cuda":
        return torch.tensor(values, device=device)
    return torch.tensor(values).pin_memory().to(device, non_blocking=True)
