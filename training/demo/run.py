"""A training run's folder: the latest state, from which an interrupted run resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.demo.optimizer import Average, Optimizers


class Run:
    """A run's model, optimizers and average, saved in `folder`."""

    def __init__(self, folder: Path, model: nn.Module, optimizers: Optimizers, average: Average) -> None:
        self.folder = folder
        self.model = model
        self.optimizers = optimizers
        self.average = average

    def save(self, step: int) -> None:
        """Save everything needed to resume at `step`; a crash meanwhile leaves the previous state."""
        parts: dict[str, Callable[[Path], None]] = {
            "model.safetensors": lambda path: save_file(dict(self.model.named_parameters()), path),
            "average.safetensors": lambda path: save_file(self.average.weights, path),
            "optimizers.pt": lambda path: torch.save({"step": step, "states": self.optimizers.state_dict()}, path),
        }
        draft = self.folder / "draft"
        draft.mkdir(parents=True, exist_ok=True)
        for name, write in parts.items():
            write(draft / name)
        for name in parts:
            (draft / name).replace(self.folder / name)

    def restore(self) -> int:
        """Load the latest state and return the step to resume at: 0 for a new run."""
        if not (self.folder / "optimizers.pt").exists():
            return 0
        self.model.load_state_dict(load_file(self.folder / "model.safetensors"), strict=False)
        self.average.weights = load_file(self.folder / "average.safetensors")
        saved = torch.load(self.folder / "optimizers.pt", weights_only=True)
        self.optimizers.load_state_dict(saved["states"])
        step: int = saved["step"]
        return step
