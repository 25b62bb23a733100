"""The device that is measured: a GPU where there is one, else the CPU."""

import time
from typing import Any

import torch

# What both sides compute in. In the exact one all answers have to be equal; in the others rounding decides near ties.
EXACT_DTYPE = "float32"
DTYPES = (EXACT_DTYPE, "bfloat16", "float16")


def device() -> torch.device:
    """Where models are put."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator() -> str | None:
    """The name of the GPU; None where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def place(model: Any, dtype: str) -> Any:
    """The model on the device, in a type; float32 is float32 throughout, as it is in the engine."""
    if dtype == EXACT_DTYPE:
        torch.backends.cudnn.allow_tf32 = False
    return model.to(device(), getattr(torch, dtype))


def clock() -> float:
    """Seconds, read when the device has done all that it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
