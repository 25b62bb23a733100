"""The device that is measured: the GPU if there is one, otherwise the CPU."""

import time
from typing import Any

import torch

# Data types that both sides can compute in. Answers must be equal in the exact one; in the others rounding decides near
# ties.
EXACT_DTYPE = "float32"
DTYPES = (EXACT_DTYPE, "bfloat16", "float16")


def device() -> torch.device:
    """The device for models and tensors."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def accelerator() -> str | None:
    """The name of the GPU; None without a GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def place(model: Any, dtype: str) -> Any:
    """Move a model to the device and convert it; float32 excludes TF32, as in the engine."""
    if dtype == EXACT_DTYPE:
        torch.backends.cudnn.allow_tf32 = False
    return model.to(device(), getattr(torch, dtype))


def clock() -> float:
    """Seconds on a monotonic clock, read after all of the device's pending work has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
