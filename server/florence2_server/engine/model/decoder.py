"""One decode step of BART's decoder over beams of different requests and lengths.

The weights are those of transformers' `BartDecoder`; the walk through the layers is ours, because its forward

- takes one length for the whole batch, where every row here is at its own position;
- wants the encoder's keys and values once a beam, where a request's beams share them here: a step reads them once;
- multiplies by weights one by one, as they are saved. With few rows a step takes as long as reading the weights, and
  they are read faster as `PackedLinear` keeps them, with query, key and value side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from florence2_engine.kv_cache import KeyValueCache
from florence2_engine.packed_linear import PackedLinear


@dataclass(frozen=True)
class _Layer:
    own_query_key_value: PackedLinear
    own_out: PackedLinear
    own_norm: torch.nn.LayerNorm
    cross_query: PackedLinear
    cross_key_value: PackedLinear
    cross_out: PackedLinear
    cross_norm: torch.nn.LayerNorm
    widen: PackedLinear
    narrow: PackedLinear
    final_norm: torch.nn.LayerNorm

    @classmethod
    def of(cls, layer: Any) -> "_Layer":
        """From a `BartDecoderLayer`."""
        own, cross = layer.self_attn, layer.encoder_attn
        return cls(
            own_query_key_value=PackedLinear.of(own.q_proj, own.k_proj, own.v_proj),
            own_out=PackedLinear.of(own.out_proj),
            own_norm=layer.self_attn_layer_norm,
            cross_query=PackedLinear.of(cross.q_proj),
            cross_key_value=PackedLinear.of(cross.k_proj, cross.v_proj),
            cross_out=PackedLinear.of(cross.out_proj),
            cross_norm=layer.encoder_attn_layer_norm,
            widen=PackedLinear.of(layer.fc1, activation=layer.activation_fn),
            narrow=PackedLinear.of(layer.fc2),
            final_norm=layer.final_layer_norm,
        )


@dataclass(frozen=True)
class Step:
    """What a decode step is about. Tensors are on the device.

    Attributes:
        token_ids: (rows,) the token that each row is fed.
        positions: (rows,) its position, counted from the decoder start token at 0.
        rows_of_slots: (slots, beams) the rows of each slot; padded with any row where a slot has fewer beams.
        places: (rows,) where each row is in `rows_of_slots`, flattened.
        cross_mask: (slots, 1, 1, longest) added to attention scores: 0 where a slot has encoder positions, else -inf.
        own_length: how many own positions are attended to; more than every one of `positions`.
    """

    token_ids: Tensor
    positions: Tensor
    rows_of_slots: Tensor
    places: Tensor
    cross_mask: Tensor
    own_length: int


class Decoder:
    """The decoder and the language model head over a cache.

    Args:
        decoder: `BartDecoder`. Its weights are used, not copied, but for queries, keys and values side by side.
        lm_head: hidden states to logits.
        cache: where the rows' keys and values are.
    """

    def __init__(self, decoder: Any, lm_head: torch.nn.Linear, cache: KeyValueCache) -> None:
        self._cache = cache
        self._heads: int = decoder.config.decoder_attention_heads
        self._layers = [_Layer.of(layer) for layer in decoder.layers]
        self._embed_tokens = decoder.embed_tokens
        positions = decoder.embed_positions
        self._positions: Tensor = positions.weight.detach()[positions.offset :]
        self._embedding_norm = decoder.layernorm_embedding
        self._lm_head = PackedLinear.of(lm_head)

    def store_encoder_output(self, encoder_output: Tensor, first_slot: int, lengths: Sequence[int]) -> None:
        """Compute and keep the cross-attention keys and values of new slots.

        Args:
            encoder_output: (new slots, longest, d_model), padded at the end.
            first_slot: where the new slots begin.
            lengths: encoder positions in use, a number a new slot.
        """
        slots, longest, width = encoder_output.shape
        flat = encoder_output.reshape(slots * longest, width)
        for index, layer in enumerate(self._layers):
            both = layer.cross_key_value(flat).view(slots, longest, 2, self._heads, -1).permute(2, 0, 3, 1, 4)
            self._cache.store_encoder_output(index, first_slot, both, lengths)

    def step(self, step: Step) -> Tensor:
        """Feed each of the first rows one token.

        Returns:
            (rows, vocabulary) float32: the logits of each row's next token.
        """
        rows, slots = len(step.token_ids), len(step.rows_of_slots)
        every_row = torch.arange(rows, device=step.token_ids.device)
        own_mask = mask(step.positions + 1, step.own_length, self._cache.own.dtype)
        hidden = self._embed_tokens(step.token_ids) + self._positions[step.positions]
        hidden = _norm(self._embedding_norm, hidden)
        for layer, own, cross in zip(self._layers, self._cache.own, self._cache.cross, strict=True):
            states = layer.own_query_key_value(hidden).view(rows, 3, self._heads, -1)
            own[:, every_row, :, step.positions] = states[:, 1:]
            keys, values = own[:, :rows, :, : step.own_length]
            attended = _attend(states[:, 0, :, None], keys, values, own_mask).view(rows, -1)
            hidden = _norm(layer.own_norm, hidden + layer.own_out(attended))

            query = layer.cross_query(hidden)[step.rows_of_slots].view(*step.rows_of_slots.shape, self._heads, -1)
            keys, values = cross[:, :slots, :, : step.cross_mask.shape[-1]]
            attended = _attend(query.transpose(1, 2), keys, values, step.cross_mask).transpose(1, 2)
            attended = attended.reshape(step.rows_of_slots.numel(), -1)[step.places]
            hidden = _norm(layer.cross_norm, hidden + layer.cross_out(attended))

            hidden = _norm(layer.final_norm, hidden + layer.narrow(layer.widen(hidden)))
        return self._lm_head(hidden).float()


def mask(lengths: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """(rows, 1, 1, longest), to be added to attention scores: 0 before a row's length, else -inf."""
    beyond = torch.arange(longest, device=lengths.device) >= lengths[:, None]
    return torch.zeros(beyond.shape, dtype=dtype, device=lengths.device).masked_fill_(beyond, -torch.inf)[:, None, None]


def _norm(norm: torch.nn.LayerNorm, states: Tensor) -> Tensor:
    return functional.layer_norm(states, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _attend(query: Tensor, keys: Tensor, values: Tensor, added_mask: Tensor) -> Tensor:
    """Attention of (n, heads, queries, width) over (n, heads, positions, width)."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=added_mask)
    # With few queries and many positions two plain products read keys and values faster than the fused kernel.
    scores = torch.matmul(query * query.shape[-1] ** -0.5, keys.transpose(2, 3)).add_(added_mask)
    return torch.matmul(scores.softmax(dim=-1), values)
