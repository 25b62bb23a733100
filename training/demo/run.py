"""A training run's folder: its newest state, from which a stopped run goes on."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from training.optimizer import Average, Optimizers


class Run:
    """Model, optimizers and average of a run, saved in `folder`."""

    def __init__(self, folder: Path, model: nn.Module, optimizers: Optimizers, average: Average) -> None:
        self.folder = folder
        self.model = model
        self.optimizers = optimizers
        self.average = average

    def save(self, step: int) -> None:
        """Saves everything needed to go on at `step`; a kill in between leaves the previous state."""
        parts = {
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
        """Loads the newest state and returns the step to go on with: 0 for a new run."""
        if not (self.folder / "optimizers.pt").exists():
            return 0
        self.model.load_state_dict(load_file(self.folder / "model.safetensors"), strict=False)
        self.average.weights = load_file(self.folder / "average.safetensors")
        saved = torch.load(self.folder / "optimizers.pt", weights_only=True)
        self.optimizers.load_state_dict(saved["states"])
        return saved["step"]
