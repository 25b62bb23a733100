"""The machine and the versions of a run."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.harness.device import accelerator

_PACKAGES = ("torch", "transformers", "numpy", "tritonclient", "nvidia-pytriton")
_ROOT = Path(__file__).resolve().parents[2]


def describe() -> dict[str, Any]:
    """Hardware, versions and the commit of this repository."""
    return {
        "processor": _processor(),
        "accelerator": accelerator(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        **commit(_ROOT),
    }


def commit(checkout: Path) -> dict[str, Any]:
    """The commit of a checkout, and whether files differ from it."""
    return {
        "commit": _git(checkout, "rev-parse", "HEAD"),
        "changed_files": bool(_git(checkout, "status", "--porcelain")),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(checkout: Path, *arguments: str) -> str | None:
    """The output of a git command; None outside a clone."""
    result = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=False)  # noqa: S607
    return result.stdout.strip() if result.returncode == 0 else None
