"""What memory this process has."""

import resource
from pathlib import Path

import torch

_RESIDENT = 1  # among the fields of /proc/self/statm, in pages, proc(5)


def resident_bytes() -> int:
    """Of the machine's memory: the resident set."""
    return int(Path("/proc/self/statm").read_text().split()[_RESIDENT]) * resource.getpagesize()


def reserved_device_bytes() -> int:
    """Of CUDA devices' memory: what torch has reserved; 0 where there is no such device."""
    if not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))
