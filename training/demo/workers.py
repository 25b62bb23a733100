"""The processes of a data-parallel run, as started by `torchrun`; without it there is one.

On CPUs, single-threaded processes, which synchronize once per step, are faster than threads, which synchronize at every
layer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn


class Workers:
    """This process's `rank` among the `count` processes of the run."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.count > 1:
            distributed.init_process_group("gloo")

    @property
    def leads(self) -> bool:
        """Whether this process logs, saves and evaluates."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """Sum a value over all processes."""
        value = value.clone()
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))
