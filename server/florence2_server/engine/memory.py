"""Memory usage of this process."""

import resource
from pathlib import Path

import torch

_RESIDENT = 1  # index of this field in /proc/self/statm, which counts pages, proc(5)


def resident_bytes() -> int:
    """The resident set size."""
    return int(Path("/proc/self/statm").read_text().split()[_RESIDENT]) * resource.getpagesize()


def reserved_device_bytes() -> int:
    """The memory that torch has reserved on CUDA devices; 0 if there are none."""
    if not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))
