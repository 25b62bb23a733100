"""Optimizers, learning rate schedule and moving average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

# Muon's learning rate / AdamW's. Muon's updates are orthogonal matrices, AdamW's have entries of about 1.
MUON_RATE = 10.0


class Optimizers:
    """Muon for the matrices of hidden layers and AdamW for everything else, on one learning rate schedule.

    On these models Muon needs far fewer steps than AdamW alone.
    """

    def __init__(self, model: nn.Module) -> None:
        matrices, others = _split(model)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.Muon(matrices, weight_decay=0.1, momentum=0.95),
        ]

    def step(self, rate: float) -> None:
        """Update the weights and drop the gradients; `rate` is AdamW's learning rate."""
        for optimizer, factor in zip(self.optimizers, (1.0, MUON_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of both optimizers."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore a state from `state_dict`."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


def _split(model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """The matrices of hidden linear layers, and all other parameters."""
    hidden = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    hidden.discard(id(model.get_input_embeddings().weight))
    parameters = list(model.parameters())
    return [p for p in parameters if id(p) in hidden], [p for p in parameters if id(p) not in hidden]


def learning_rate(step: int, steps: int, peak: float, warmup: int, cooldown: int) -> float:
    """Linear warm-up, constant plateau, and linear cool-down over the last `cooldown` steps."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / cooldown)


class Average:
    """An exponential moving average of a model's weights; the average is what is exported."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's weights, by more in early steps, when they change fast."""
        share = 1 - min(self.decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in model.named_parameters():
                self.weights[name].lerp_(value, share)
