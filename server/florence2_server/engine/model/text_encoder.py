"""BART's encoder over sequences of different lengths, without padding.

The weights are those of transformers' `BartEncoder`, whose forward pads each sequence to the longest and passes a mask
to attention. Here the linear layers, nine tenths of the work, see the valid positions of all sequences end to end;
attention runs on one sequence at a time, or on all at once if they have the same length, and needs no mask.
`python -m benchmarks.kernels.encoding` compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, functional
from torch.nn.utils.rnn import pad_sequence

from florence2_server.engine.model.layers import Layers
from florence2_server.engine.model.linear import Linear
from florence2_server.engine.model.low_rank import BatchAdapters, SegmentAdapters


@dataclass(frozen=True)
class _Layer:
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    attention_norm: LayerNorm
    fc1: Linear
    fc2: Linear
    final_norm: LayerNorm

    @classmethod
    def of(cls, layer: Any, layers: Layers) -> "_Layer":
        """From a `BartEncoderLayer`."""
        attention = layer.self_attn
        return cls(
            query=layers.linear(attention.q_proj),
            key=layers.linear(attention.k_proj),
            value=layers.linear(attention.v_proj),
            out=layers.linear(attention.out_proj),
            attention_norm=layer.self_attn_layer_norm,
            fc1=layers.linear(layer.fc1, activation=layer.activation_fn),
            fc2=layers.linear(layer.fc2),
            final_norm=layer.final_layer_norm,
        )


class TextEncoder:
    """The text encoder of a model.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode. Its weights are used, not copied.
        layers: makes the layers that adapters can target.
    """

    def __init__(self, model: Any, layers: Layers | None = None) -> None:
        layers = layers or Layers(model)
        encoder = model.model.language_model.encoder
        self._positions = encoder.embed_positions
        self._embedding_norm = encoder.layernorm_embedding
        self._layers = [_Layer.of(layer, layers) for layer in encoder.layers]
        self._heads = encoder.config.encoder_attention_heads
        self._head_width = encoder.config.d_model // self._heads

    @torch.inference_mode()
    def __call__(self, embeddings: Tensor, lengths: list[int], adapters: Sequence[int] | None = None) -> Tensor:
        """Encode image and prompt embeddings.

        Args:
            embeddings: (sequences, positions, d_model); what is beyond a sequence's length is ignored.
            lengths: the number of valid positions of each sequence; the longest is `positions`.
            adapters: of each sequence; None if no sequence has one.

        Returns:
            (sequences, positions, d_model), zeros beyond a sequence's length.
        """
        sequences = zip(embeddings, lengths, strict=True)
        hidden = torch.cat([self._embed(sequence[:length]) for sequence, length in sequences])
        rows = SegmentAdapters.consecutive(lengths, adapters) if adapters else None
        for layer in self._layers:
            hidden = layer.attention_norm(hidden + self._self_attention(layer, hidden, lengths, rows))
            hidden = layer.final_norm(hidden + layer.fc2(layer.fc1(hidden, rows), rows))
            hidden = _clamp(hidden)
        return pad_sequence(list(torch.split(hidden, lengths)), batch_first=True)

    def _embed(self, sequence: Tensor) -> Tensor:
        """Add the position embeddings to a sequence (length, d_model), and normalize it."""
        offset = self._positions.offset
        embedded: Tensor = self._embedding_norm(sequence + self._positions.weight[offset : offset + len(sequence)])
        return embedded

    def _self_attention(
        self, layer: _Layer, hidden: Tensor, lengths: list[int], adapters: BatchAdapters | None
    ) -> Tensor:
        states = [project(hidden, adapters) for project in (layer.query, layer.key, layer.value)]
        if len(set(lengths)) == 1:
            attended = self._attend(states, len(lengths))
        else:
            by_sequence = zip(*(torch.split(state, lengths) for state in states), strict=True)
            attended = torch.cat([self._attend(sequence, 1) for sequence in by_sequence])
        return layer.out(attended, adapters)

    def _attend(self, states: Sequence[Tensor], sequences: int) -> Tensor:
        """Attention in sequences of one length. Query, key, value and result: (sequences x length, d_model)."""
        query, key, value = (
            state.view(sequences, -1, self._heads, self._head_width).transpose(1, 2) for state in states
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(states[0].shape)


def _clamp(hidden: Tensor) -> Tensor:
    """Clamp float16 as transformers does, but always: checking whether it is needed would wait for the device."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-limit, limit)
