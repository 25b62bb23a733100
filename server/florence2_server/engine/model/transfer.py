"""Small numbers from the host to the device."""

from typing import Any

import torch
from torch import Tensor


def to_device(values: Any, device: torch.device) -> Tensor:
    """A tensor of numbers that the device will have when it comes to them; the host does not wait for it.

    `torch.tensor(values, device=...)` waits until a GPU has done everything that it was told before.

    Args:
        values: nested lists of whole numbers.
        device: where the tensor shall be.
    """
    if device.type != "cuda":
        return torch.tensor(values, device=device)
    return torch.tensor(values).pin_memory().to(device, non_blocking=True)
