"""Florence-2's vision tower and the projection to image tokens.

The layers and weights are transformers' own (`Florence2VisionBackbone`, `Florence2MultiModalProjector`); the walk
through them is ours. On a CPU, at base size, it takes 0.8 of transformers' time (`python -m benchmarks.encoding`).
Matrix products are nearly three quarters of that time and run close to what the processor can do, so what can be saved
lies between them, or is products that need not be done. In hundredths of transformers' time:

- Activations stay channels last, (images, height, width, channels), from the first convolution to the end, and residual
  sums are made in place. transformers goes back and forth between that, for norms and linear layers, and channels
  first, for depthwise convolutions. About 11, with the value projection below.
- Window attention and the feed-forward network take the image in chunks. The first stage's wide intermediate is 75 MB
  for an image of 768 x 768; the C library returns blocks over 32 MB to the kernel when they are freed, and the next one
  costs a page fault every 4 KB. About 1.
- Channel attention mixes channels in the same way at every position. So its weights, the value projection and the
  output projection are three matrices in a row: multiplied with each other first, they are one product over the
  positions instead of three. In float32 query and key are not computed either: only their product, summed over the
  positions, is needed, and that follows from the product of the layer's input with itself. Of four linear layers over
  the positions two such products remain. About 4 for query and key.
- Linear layers go to oneDNN (`linear.py`). About 4.

On a GPU starting thousands of small kernels takes longer than most of them run: there all images go through channel
attention at once, and `vision_graphs.py` starts the whole walk as one.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from florence2_engine.linear import linear, linear_of

_Projection = tuple[Tensor, Tensor]  # weight and bias
_CHUNK_BYTES = 20 << 20  # of the widest intermediate. Smaller ones make the matrix products slower.
_PIECE_POSITIONS = 512


class VisionTower:
    """The image encoder of a model.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode. Its weights are used, not copied.
    """

    def __init__(self, model: Any) -> None:
        self._tower = model.model.vision_tower
        self._projector = model.model.multi_modal_projector

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Encode images.

        Args:
            pixels: (images, 3, height, width), normalised.

        Returns:
            (images, image tokens, d_model).
        """
        hidden = pixels.to(self._tower.convs[0].conv.weight.dtype).permute(0, 2, 3, 1)
        for embedding, blocks in zip(self._tower.convs, self._tower.blocks, strict=True):
            hidden = _embed_patches(embedding, hidden)
            for block in blocks:
                spatial, channel = block.spatial_block, block.channel_block
                hidden = _block(spatial, hidden, partial(_add_window_attention, attention=spatial.window_attn))
                hidden = _block(channel, hidden, partial(_add_channel_attention, attention=channel.channel_attn))
        return _project(self._projector, hidden)


def _embed_patches(embedding: Any, hidden: Tensor) -> Tensor:
    if embedding.pre_norm:
        return _convolve(embedding.conv, embedding.norm(hidden))
    embedded: Tensor = embedding.norm(_convolve(embedding.conv, hidden))
    return embedded


def _block(block: Any, hidden: Tensor, add_attention: Callable[[Tensor, Any], None]) -> Tensor:
    hidden = _convolve(block.conv1, hidden).add_(hidden)
    add_attention(hidden, block.norm1)
    hidden = _convolve(block.conv2, hidden).add_(hidden)
    _add_feed_forward(hidden, block.norm2, block.ffn)
    return hidden


def _convolve(convolution: Any, hidden: Tensor) -> Tensor:
    """A convolution of channels-last activations: PyTorch sees their strides and leaves them so."""
    convolved: Tensor = convolution(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()
    return convolved


def _add_feed_forward(hidden: Tensor, norm: Any, mlp: Any) -> None:
    width, channels = mlp.fc1.weight.shape
    for rows in torch.split(hidden.view(-1, channels), _chunk(hidden, width)):
        rows += linear(mlp.fc2, mlp.activation_fn(linear(mlp.fc1, norm(rows))))


def _add_window_attention(hidden: Tensor, norm: Any, attention: Any) -> None:
    images, _, width, channels = hidden.shape
    side = attention.window_size
    windows_down = _chunk(hidden, images * side * width * 3 * channels)
    for band in torch.split(hidden, windows_down * side, dim=1):
        band += _window_attention(attention, norm(band))


def _chunk(hidden: Tensor, row_width: int) -> int:
    """How many rows of `row_width` numbers to work on at once. On a GPU all, as each chunk costs kernel launches."""
    if hidden.device.type != "cpu":
        return max(1, hidden.numel())
    return max(1, _CHUNK_BYTES // (row_width * hidden.element_size()))


def _window_attention(attention: Any, normed: Tensor) -> Tensor:
    """Attention inside windows of (images, height, width, channels), zeros added where the last window is not full."""
    images, height, width, channels = normed.shape
    side = attention.window_size
    right, bottom = -width % side, -height % side
    if right or bottom:
        normed = functional.pad(normed, (0, 0, 0, right, 0, bottom))
    down, across = (height + bottom) // side, (width + right) // side
    windows = normed.view(images, down, side, across, side, channels).transpose(2, 3)
    states = linear(attention.qkv, windows.reshape(-1, side * side, channels))
    query, key, value = states.view(-1, side * side, 3, attention.num_heads, channels // attention.num_heads).permute(
        2, 0, 3, 1, 4
    )
    attended = functional.scaled_dot_product_attention(query, key, value)
    projected = linear(attention.proj, attended.transpose(1, 2).reshape(-1, channels))
    merged = projected.view(images, down, across, side, side, channels).transpose(2, 3)
    return merged.reshape(images, height + bottom, width + right, channels)[:, :height, :width]


def _add_channel_attention(hidden: Tensor, norm: Any, attention: Any) -> None:
    images, normed = hidden.flatten(1, 2), norm(hidden).flatten(1, 2)
    weight, bias = attention.qkv.weight, attention.qkv.bias
    if bias is None:
        bias = weight.new_zeros(len(weight))
    query, key, value = zip(weight.chunk(3), bias.chunk(3), strict=True)
    if hidden.device.type == "cpu":  # one image after another: what one leaves in the processor's cache is used again
        scores = torch.stack([_channel_scores(query, key, image, attention.groups) for image in normed])
    else:
        scores = _channel_scores_in_pieces(query, key, normed, attention.groups)
    attended = (scores * normed.shape[1] ** -0.5).softmax(dim=-1).to(normed.dtype)
    output = attention.proj.weight.view(len(attention.proj.weight), attention.groups, -1).transpose(0, 1)
    mixed = (output @ attended).transpose(1, 2).flatten(2)
    weights, biases = mixed @ value[0], attention.proj.bias + mixed @ value[1]
    if hidden.device.type == "cpu":
        for image, rows, image_weight, image_bias in zip(images, normed, weights, biases, strict=True):
            image += linear_of(rows, image_weight, image_bias)
    else:
        images += torch.baddbmm(biases[:, None], normed, weights.transpose(1, 2))


def _channel_scores_in_pieces(query: _Projection, key: _Projection, normed: Tensor, groups: int) -> Tensor:
    """What `_channel_scores` gives, for several images.

    Each of the few results is a sum over tens of thousands of positions, which one product leaves to a few of a GPU's
    many processors. So the positions are summed in pieces, and then the pieces.

    Args:
        query: weight and bias.
        key: weight and bias.
        normed: (images, positions, channels), what is projected.
        groups: of the channels.

    Returns:
        (images, groups, query channels, key channels), float32.
    """
    images, positions, channels = normed.shape
    pieces = math.gcd(positions, max(1, positions // _PIECE_POSITIONS))
    queries, keys = (
        linear_of(normed, *projection).view(images, pieces, -1, groups, channels // groups).transpose(2, 3)
        for projection in (query, key)
    )
    return torch.matmul(queries.transpose(3, 4), keys).sum(dim=1, dtype=torch.float32)


def _channel_scores(query: _Projection, key: _Projection, normed: Tensor, groups: int) -> Tensor:
    """Each query channel times each key channel of its group, summed over the positions of one image.

    Args:
        query: weight and bias.
        key: weight and bias.
        normed: (positions, channels), what is projected.
        groups: of the channels.

    Returns:
        (groups, query channels, key channels), float32.
    """
    positions, channels = normed.shape
    if normed.dtype != torch.float32 or positions <= channels:
        # Few positions: the squares below are no less work. Half precision: they are far larger than what is left of
        # them in the end.
        queries, keys = (linear_of(normed, *projection).float() for projection in (query, key))
        return torch.matmul(queries.t().view(groups, -1, positions), keys.view(positions, groups, -1).transpose(0, 1))
    squares = normed.t() @ normed
    sums = normed.sum(dim=0)
    inputs_by_keys = torch.addmm(torch.outer(sums, key[1]), squares, key[0].t()).view(channels, groups, -1)
    key_sums = torch.addmv(positions * key[1], key[0], sums)
    inputs_by_keys = torch.matmul(query[0].view(groups, -1, channels), inputs_by_keys.transpose(0, 1))
    return inputs_by_keys + query[1].view(groups, -1, 1) * key_sums.view(groups, 1, -1)


def _project(projector: Any, hidden: Tensor) -> Tensor:
    """Add positions and the place in time (the first: an image is one frame), put the mean first, project."""
    images, height, width, channels = hidden.shape
    positions = projector.image_position_embed
    columns = positions.column_embeddings.weight[:width].expand(height, -1, -1)
    rows = positions.row_embeddings.weight[:height, None].expand(-1, width, -1)
    placed = hidden + torch.cat([columns, rows], dim=-1)
    tokens = placed.view(images, -1, channels) + projector.visual_temporal_embed.pos_idx_to_embed[0]
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
    projected: Tensor = projector.image_proj_norm(projector.image_projection(tokens))
    return projected
