"""One decode step of BART's decoder over the beams of all running generations, whatever their lengths.

The weights are those of transformers' `BartDecoder`, but its forward is not used, because it

- takes one length for the whole batch, whereas here each row is at its own position;
- needs the encoder's keys and values once per beam, whereas here a generation's beams share them, so that a step reads
  them once;
- multiplies by the weights one by one, in the layout in which they are saved. With few rows a step takes as long as
  reading the weights, which is faster in the layout that `Linear` gives them, with query, key and value side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import LayerNorm, functional

from florence2_server.engine.model.decode_batch import DecodeBatch, attention_mask
from florence2_server.engine.model.kv_cache import KeyValueCache
from florence2_server.engine.model.layers import Layers
from florence2_server.engine.model.linear import Linear
from florence2_server.engine.model.low_rank import RowAdapters, SegmentAdapters
from florence2_server.engine.model.vocabulary import OutputLayer, TokenEmbeddings


@dataclass(frozen=True)
class _Layer:
    self_attention_query_key_value: Linear
    self_attention_out: Linear
    self_attention_norm: LayerNorm
    cross_attention_query: Linear
    cross_attention_key_value: Linear
    cross_attention_out: Linear
    cross_attention_norm: LayerNorm
    fc1: Linear
    fc2: Linear
    final_norm: LayerNorm

    @classmethod
    def of(cls, layer: Any, layers: Layers) -> "_Layer":
        """From a `BartDecoderLayer`."""
        attention, cross = layer.self_attn, layer.encoder_attn
        return cls(
            self_attention_query_key_value=layers.linear(
                attention.q_proj, attention.k_proj, attention.v_proj, few_rows=True
            ),
            self_attention_out=layers.linear(attention.out_proj, few_rows=True),
            self_attention_norm=layer.self_attn_layer_norm,
            cross_attention_query=layers.linear(cross.q_proj, few_rows=True),
            cross_attention_key_value=layers.linear(cross.k_proj, cross.v_proj, few_rows=True),
            cross_attention_out=layers.linear(cross.out_proj, few_rows=True),
            cross_attention_norm=layer.encoder_attn_layer_norm,
            fc1=layers.linear(layer.fc1, activation=layer.activation_fn, few_rows=True),
            fc2=layers.linear(layer.fc2, few_rows=True),
            final_norm=layer.final_layer_norm,
        )


class Decoder:
    """The decoder and the language model head, on a key-value cache.

    Args:
        decoder: `BartDecoder`. Its weights are used, not copied, except those of query, key and value, which are copied
            side by side.
        lm_head: hidden states to logits.
        cache: holds the rows' and the slots' keys and values.
        layers: makes the layers that adapters can target.

    Attributes:
        embed_tokens: the token embeddings.
        output: the output layer.
    """

    def __init__(
        self, decoder: Any, lm_head: torch.nn.Linear, cache: KeyValueCache, layers: Layers | None = None
    ) -> None:
        layers = layers or Layers(torch.nn.ModuleList([decoder, lm_head]))
        self._cache = cache
        self._heads: int = decoder.config.decoder_attention_heads
        self._layers = [_Layer.of(layer, layers) for layer in decoder.layers]
        self.embed_tokens = TokenEmbeddings(decoder.embed_tokens)
        positions = decoder.embed_positions
        self._position_embeddings: Tensor = positions.weight.detach()[positions.offset :]
        self._embedding_norm = decoder.layernorm_embedding
        self.output = OutputLayer(layers.linear(lm_head, few_rows=True))

    def store_cross_attention(
        self,
        encoder_output: Tensor,
        first_slot: int,
        lengths: Sequence[int],
        adapters: Sequence[int] | None = None,
    ) -> None:
        """Compute the cross-attention keys and values of new slots, and store them in the cache.

        Args:
            encoder_output: (new slots, longest, d_model), padded at the end.
            first_slot: the first of the new slots; the others follow it.
            lengths: the number of encoder positions of each new slot.
            adapters: of each new slot; None if no slot has one.
        """
        slots, longest, width = encoder_output.shape
        flat = encoder_output.reshape(slots * longest, width)
        of_rows = SegmentAdapters.consecutive([longest] * slots, adapters) if adapters else None
        self._cache.start_slots(first_slot, lengths)
        for index, layer in enumerate(self._layers):
            both = layer.cross_attention_key_value(flat, of_rows)
            both = both.view(slots, longest, 2, self._heads, -1).permute(2, 0, 3, 1, 4)
            self._cache.store_cross_attention(index, first_slot, both)

    def decode_step(self, batch: DecodeBatch) -> Tensor:
        """Feed each of the first rows one token.

        Returns:
            (rows, vocabulary) float32: the logits of each row's next token.
        """
        rows = torch.arange(len(batch.token_ids), device=batch.token_ids.device)
        mask = attention_mask(batch.positions + 1, batch.self_attention_length, self._cache.self_attention.dtype)
        # Made anew in each step: what it computes once must be part of a recording.
        adapters = None if batch.adapters is None else RowAdapters(batch.adapters, batch.active_adapters)
        hidden = self.embed_tokens.of_rows(batch.token_ids, adapters) + self._position_embeddings[batch.positions]
        hidden = _norm(self._embedding_norm, hidden)
        for index, layer in enumerate(self._layers):
            cache = self._cache.self_attention[index]
            attended = self._self_attention(layer, cache, hidden, batch, rows, mask, adapters)
            hidden = _norm(layer.self_attention_norm, hidden + attended)
            attended = self._cross_attention(layer, self._cache.cross_attention[index], hidden, batch, adapters)
            hidden = _norm(layer.cross_attention_norm, hidden + attended)
            hidden = _norm(layer.final_norm, hidden + layer.fc2(layer.fc1(hidden, adapters), adapters))
        return self.output(hidden, adapters)

    def _self_attention(
        self,
        layer: _Layer,
        cache: Tensor,
        hidden: Tensor,
        batch: DecodeBatch,
        rows: Tensor,
        mask: Tensor,
        adapters: RowAdapters | None,
    ) -> Tensor:
        """Add the new positions' keys and values to the layer's cache, and attend to each row's positions so far."""
        states = layer.self_attention_query_key_value(hidden, adapters).view(len(rows), 3, self._heads, -1)
        cache[:, rows, :, batch.positions] = states[:, 1:]
        keys, values = cache[:, : len(rows), :, : batch.self_attention_length]
        attended = _attend(states[:, 0, :, None], keys, values, mask).view(len(rows), -1)
        return layer.self_attention_out(attended, adapters)

    def _cross_attention(
        self, layer: _Layer, cache: Tensor, hidden: Tensor, batch: DecodeBatch, adapters: RowAdapters | None
    ) -> Tensor:
        """Attend to the encoder positions of each slot, with the queries of all its beams at once."""
        slots, beams = batch.rows_of_slots.shape
        query = layer.cross_attention_query(hidden, adapters)[batch.rows_of_slots].view(slots, beams, self._heads, -1)
        keys, values = cache[:, :slots, :, : batch.cross_attention_mask.shape[-1]]
        attended = _attend(query.transpose(1, 2), keys, values, batch.cross_attention_mask).transpose(1, 2)
        return layer.cross_attention_out(attended.reshape(slots * beams, -1)[batch.beam_indices], adapters)


def _norm(norm: LayerNorm, states: Tensor) -> Tensor:
    return functional.layer_norm(states, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of (n, heads, queries, width) over (n, heads, positions, width); the mask is added to the scores."""
    if query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    # With few queries and many positions, two plain products read keys and values faster than the fused kernel.
    scores = torch.matmul(query * query.shape[-1] ** -0.5, keys.transpose(2, 3)).add_(mask)
    return torch.matmul(scores.softmax(dim=-1), values)
