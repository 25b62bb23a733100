"""Florence-2's vision tower (DaViT), and the projection to image tokens.

The weights are those of transformers' `Florence2VisionBackbone` and `Florence2MultiModalProjector`; the forward is not.
On a CPU, at base size, it takes 0.8 of transformers' time (`python -m benchmarks.kernels.encoding`). Matrix
products are nearly three quarters of that and run close to the processor's limit, so time can only be saved between
them, or by avoiding some. What is saved, in percent of transformers' time:

- Activations stay channels last, (images, height, width, channels), from the first convolution to the end, and residual
  sums are computed in place. transformers converts between channels last, for norms and linear layers, and channels
  first, for depthwise convolutions. About 11, including the merged value projection (`channel_attention.py`).
- Query and key of channel attention are not computed (`channel_attention.py`). About 4.
- Linear layers use oneDNN (`linear.py`). About 4.
- Window attention and the feed-forward network work on chunks of the image. The wide intermediate of the first stage
  takes 75 MB for an image of 768 x 768; the C library returns blocks over 32 MB to the kernel when they are freed, and
  the next block costs a page fault every 4 KB. About 1.

On a GPU, launching thousands of small kernels takes longer than running most of them. There channel attention works on
all images at once, and the whole tower is launched as one graph (`graphs.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, functional

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.channel_attention import ChannelAttention
from florence2_server.engine.model.graphs import GraphCache, NoPadding, Recorder
from florence2_server.engine.model.layers import Convolution, Layers
from florence2_server.engine.model.linear import Linear
from florence2_server.engine.model.low_rank import BatchAdapters, SegmentAdapters

_CHUNK_BYTES = 20 << 20  # of the widest intermediate; with less, matrix products become slower
_MOST_GRAPHS = 8


class VisionTower:
    """The image encoder of a model.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode. Its weights are used, not copied.
        layers: makes the layers that adapters can target.
    """

    def __init__(self, model: Any, layers: Layers | None = None) -> None:
        layers = layers or Layers(model)
        tower = model.model.vision_tower
        self._dtype: torch.dtype = tower.convs[0].conv.weight.dtype
        self._stages = [
            (_PatchEmbedding.of(patches, layers), [half for block in blocks for half in _halves(block, layers)])
            for patches, blocks in zip(tower.convs, tower.blocks, strict=True)
        ]
        self._projector = model.model.multi_modal_projector
        self._projection = layers.linear(self._projector.image_projection)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor, adapter: int = BASE) -> Tensor:
        """Encode images.

        Args:
            pixels: (images, 3, height, width), normalized.
            adapter: applied to all of them.

        Returns:
            (images, image tokens, d_model).
        """
        hidden = pixels.to(self._dtype).permute(0, 2, 3, 1)
        for embed_patches, blocks in self._stages:
            hidden = embed_patches(hidden, adapter)
            for block in blocks:
                hidden = block(hidden, adapter)
        projection = self._projection(self._image_tokens(hidden), _rows_of(adapter))
        projected: Tensor = self._projector.image_proj_norm(projection)
        return projected

    def _image_tokens(self, hidden: Tensor) -> Tensor:
        """Add the embeddings of position and time (an image is the first and only frame); put the mean first."""
        images, height, width, channels = hidden.shape
        positions = self._projector.image_position_embed
        columns = positions.column_embeddings.weight[:width].expand(height, -1, -1)
        rows = positions.row_embeddings.weight[:height, None].expand(-1, width, -1)
        placed = hidden + torch.cat([columns, rows], dim=-1)
        tokens = placed.view(images, -1, channels) + self._projector.visual_temporal_embed.pos_idx_to_embed[0]
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)


def vision_graphs(tower: Callable[[Tensor], Tensor], record: Recorder) -> GraphCache[Tensor]:
    """The tower as recordings, one for each number of images: a checkpoint's images all have one size."""
    return GraphCache("image encoding", tower, NoPadding(), _MOST_GRAPHS, record)


@dataclass(frozen=True)
class _WindowAttention:
    qkv: Linear
    out: Linear
    heads: int
    side: int

    @classmethod
    def of(cls, attention: Any, layers: Layers) -> "_WindowAttention":
        """From a `Florence2VisionWindowAttention`."""
        qkv, out = layers.linear(attention.qkv), layers.linear(attention.proj)
        return cls(qkv, out, attention.num_heads, attention.window_size)

    def add_to(self, hidden: Tensor, norm: LayerNorm, adapter: int) -> None:
        """Add the attention of the normalized states to the states (images, height, width, channels), in place."""
        images, _, width, channels = hidden.shape
        windows_down = _chunk(hidden, images * self.side * width * 3 * channels)
        for band in torch.split(hidden, windows_down * self.side, dim=1):
            band += self._attend(norm(band), _rows_of(adapter))

    def _attend(self, normed: Tensor, adapters: BatchAdapters | None) -> Tensor:
        """Attention within windows; the last ones are padded with zeros if the image does not fill them."""
        images, height, width, channels = normed.shape
        right, bottom = -width % self.side, -height % self.side
        if right or bottom:
            normed = functional.pad(normed, (0, 0, 0, right, 0, bottom))
        grid = (images, (height + bottom) // self.side, self.side, (width + right) // self.side, self.side, channels)
        windows = normed.view(grid).transpose(2, 3)
        states = self.qkv(windows.reshape(-1, self.side**2, channels), adapters)
        by_head = states.view(-1, self.side**2, 3, self.heads, channels // self.heads)
        query, key, value = by_head.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        projected = self.out(attended.transpose(1, 2).reshape(-1, channels), adapters)
        merged = projected.view(windows.shape).transpose(2, 3)
        return merged.reshape(normed.shape)[:, :height, :width]


@dataclass(frozen=True)
class _Block:
    """A depthwise convolution and attention, then another convolution and a feed-forward network."""

    conv1: Convolution
    norm1: LayerNorm
    attention: _WindowAttention | ChannelAttention
    conv2: Convolution
    norm2: LayerNorm
    fc1: Linear
    fc2: Linear

    @classmethod
    def of(cls, block: Any, attention: _WindowAttention | ChannelAttention, layers: Layers) -> "_Block":
        """From a `Florence2VisionSpatialBlock` or a `Florence2VisionChannelBlock`."""
        return cls(
            conv1=layers.convolution(block.conv1),
            norm1=block.norm1,
            attention=attention,
            conv2=layers.convolution(block.conv2),
            norm2=block.norm2,
            fc1=layers.linear(block.ffn.fc1, activation=block.ffn.activation_fn),
            fc2=layers.linear(block.ffn.fc2),
        )

    def __call__(self, hidden: Tensor, adapter: int) -> Tensor:
        """(images, height, width, channels) -> the same."""
        rows = _rows_of(adapter)
        hidden = self.conv1(hidden, adapter).add_(hidden)
        self.attention.add_to(hidden, self.norm1, adapter)
        hidden = self.conv2(hidden, adapter).add_(hidden)
        width, channels = self.fc1.weight.shape
        for positions in torch.split(hidden.view(-1, channels), _chunk(hidden, width)):
            positions += self.fc2(self.fc1(self.norm2(positions), rows), rows)
        return hidden


def _halves(block: Any, layers: Layers) -> tuple[_Block, _Block]:
    """From a `Florence2VisionBlock`: spatial attention in windows, then channel attention."""
    spatial, channel = block.spatial_block, block.channel_block
    return (
        _Block.of(spatial, _WindowAttention.of(spatial.window_attn, layers), layers),
        _Block.of(channel, ChannelAttention.of(channel.channel_attn, layers), layers),
    )


@dataclass(frozen=True)
class _PatchEmbedding:
    convolution: Convolution
    norm: LayerNorm
    is_normed_before: bool

    @classmethod
    def of(cls, embedding: Any, layers: Layers) -> "_PatchEmbedding":
        """From a `Florence2VisionConvEmbed`."""
        return cls(layers.convolution(embedding.conv), embedding.norm, embedding.pre_norm)

    def __call__(self, hidden: Tensor, adapter: int) -> Tensor:
        """(images, height, width, channels) -> the same, smaller and with more channels."""
        if self.is_normed_before:
            return self.convolution(self.norm(hidden), adapter)
        embedded: Tensor = self.norm(self.convolution(hidden, adapter))
        return embedded


def _rows_of(adapter: int) -> BatchAdapters | None:
    """The adapter of all rows of a layer's input."""
    return None if adapter == BASE else SegmentAdapters.whole(adapter)


def _chunk(hidden: Tensor, width: int) -> int:
    """How many times `width` numbers to compute at once. On a GPU all, because each chunk costs kernel launches."""
    if hidden.device.type != "cpu":
        return max(1, hidden.numel())
    return max(1, _CHUNK_BYTES // (width * hidden.element_size()))
