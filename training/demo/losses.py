"""The training loss: cross-entropy, with soft targets for location tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Locations:
    """The range of location tokens in the vocabulary."""

    first: int
    count: int = 1000


def answer_losses(logits: Tensor, labels: Tensor, pad: int, locations: Locations, sigma: float) -> Tensor:
    """Summed loss and number of text tokens, then of location tokens, (4,).

    `logits` is (examples, tokens, vocabulary), `labels` (examples, tokens). A location's target is a Gaussian with a
    standard deviation of `sigma` bins, so that a near miss costs less than a far one. Its entropy is subtracted, so
    that a perfect answer costs 0.
    """
    kept = labels != pad
    log_probabilities = functional.log_softmax(logits[kept], dim=-1)
    labels = labels[kept]
    bins = labels - locations.first
    is_location = (bins >= 0) & (bins < locations.count)
    text = -log_probabilities[~is_location].gather(1, labels[~is_location, None]).sum()
    place = slice(locations.first, locations.first + locations.count)
    targets = gaussians(bins[is_location], locations.count, sigma)
    located = (torch.xlogy(targets, targets) - targets * log_probabilities[is_location, place]).sum()
    return torch.stack([text, (~is_location).sum(), located, is_location.sum()])


def gaussians(bins: Tensor, count: int, sigma: float) -> Tensor:
    """A normal distribution around each bin, truncated at the ends, (bins, count)."""
    distances = torch.arange(count, device=bins.device) - bins[:, None]
    return functional.softmax(-0.5 * (distances / sigma) ** 2, dim=-1)
