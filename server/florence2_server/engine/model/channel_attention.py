"""DaViT's channel attention: in each group, channels attend to channels, over all positions of an image.

Channels are mixed in the same way at every position. So the attention weights, the value projection and the output
projection are three consecutive matrices: if they are multiplied with each other first, there is one product over the
positions instead of three. In float32 on a CPU, query and key are not computed either: only their product, summed over
the positions, is needed, and it follows from the product of the layer's input with itself. Of four linear layers over
the positions, two such products remain.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.layers import Layers
from florence2_server.engine.model.linear import Linear

_PIECE_POSITIONS = 512


@dataclass(frozen=True)
class ChannelAttention:
    """The channel attention of a block.

    Attributes:
        query_key_value: the three projections side by side.
        out: the output projection.
        groups: of the channels.
    """

    query_key_value: Linear
    out: Linear
    groups: int

    @classmethod
    def of(cls, attention: Any, layers: Layers) -> "ChannelAttention":
        """From a `Florence2VisionChannelAttention`."""
        return cls(layers.linear(attention.qkv), layers.linear(attention.proj), attention.groups)

    def add_to(self, hidden: Tensor, norm: torch.nn.LayerNorm, adapter: int = BASE) -> None:
        """Add the attention of the normalized states to the states (images, height, width, channels), in place."""
        images, normed = hidden.flatten(1, 2), norm(hidden).flatten(1, 2)
        weights, biases = self._mixing(normed, adapter)
        if hidden.device.type == "cpu":
            for image, states, weight, bias in zip(images, normed, weights, biases, strict=True):
                image += Linear(weight, bias)(states)
        else:
            images += torch.baddbmm(biases[:, None], normed, weights.transpose(1, 2))

    def _mixing(self, normed: Tensor, adapter: int) -> tuple[Tensor, Tensor]:
        """The weight and bias, for each image, that value projection, attention and output projection amount to."""
        query, key, value = _thirds(self.query_key_value.merged(adapter))
        if normed.device.type == "cpu":  # one image at a time, which keeps its data in the processor's cache
            scores = torch.stack([channel_scores(query, key, image, self.groups) for image in normed])
        else:
            scores = channel_scores_in_pieces(query, key, normed, self.groups)
        attention = (scores * normed.shape[1] ** -0.5).softmax(dim=-1).to(normed.dtype)
        out = self.out.merged(adapter)
        by_group = out.weight.view(len(out.weight), self.groups, -1).transpose(0, 1)
        mixed = (by_group @ attention).transpose(1, 2).flatten(2)
        return mixed @ value.weight, out.bias + mixed @ value.bias


def _thirds(joint: Linear) -> tuple[Linear, Linear, Linear]:
    """The layers that one computes side by side, each with a bias."""
    bias = joint.weight.new_zeros(len(joint.weight)) if joint.bias is None else joint.bias
    query, key, value = (Linear(*part) for part in zip(joint.weight.chunk(3), bias.chunk(3), strict=True))
    return query, key, value


def channel_scores_in_pieces(query: Linear, key: Linear, normed: Tensor, groups: int) -> Tensor:
    """`channel_scores` of several images at once.

    Each of the few results is a sum over tens of thousands of positions, which a single product leaves to a few of a
    GPU's many processors. So the positions are summed in pieces, and then the pieces.

    Args:
        query: a projection.
        key: another.
        normed: (images, positions, channels), their input.
        groups: of the channels.

    Returns:
        (images, groups, query channels, key channels), float32.
    """
    images, positions, channels = normed.shape
    pieces = math.gcd(positions, max(1, positions // _PIECE_POSITIONS))
    queries, keys = (
        project(normed).view(images, pieces, -1, groups, channels // groups).transpose(2, 3) for project in (query, key)
    )
    return torch.matmul(queries.transpose(3, 4), keys).sum(dim=1, dtype=torch.float32)


def channel_scores(query: Linear, key: Linear, normed: Tensor, groups: int) -> Tensor:
    """The products of each query channel with each key channel of its group, summed over the positions of one image.

    Args:
        query: a projection, with a bias.
        key: another.
        normed: (positions, channels), their input.
        groups: of the channels.

    Returns:
        (groups, query channels, key channels), float32.
    """
    positions, channels = normed.shape
    if normed.dtype != torch.float32 or positions <= channels:
        # With few positions the squares below are no less work. In half precision they would lose too much: they are
        # far larger than what remains of them in the end.
        queries, keys = (project(normed).float() for project in (query, key))
        return torch.matmul(queries.t().view(groups, -1, positions), keys.view(positions, groups, -1).transpose(0, 1))
    assert query.bias is not None
    assert key.bias is not None
    squares = normed.t() @ normed
    sums = normed.sum(dim=0)
    inputs_by_keys = torch.addmm(torch.outer(sums, key.bias), squares, key.weight.t()).view(channels, groups, -1)
    key_sums = torch.addmv(positions * key.bias, key.weight, sums)
    inputs_by_keys = torch.matmul(query.weight.view(groups, -1, channels), inputs_by_keys.transpose(0, 1))
    return inputs_by_keys + query.bias.view(groups, -1, 1) * key_sums.view(groups, 1, -1)
