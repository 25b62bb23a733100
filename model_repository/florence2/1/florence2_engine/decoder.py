"""One decode step of BART's decoder over rows of different lengths.

The layers and weights are transformers' own (`BartDecoder`); its forward takes one length for the whole batch, so the
walk through the layers is ours.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from florence2_engine.kv_cache import KeyValueCache, LayerCache


class Decoder:
    """The decoder and the language model head over a cache.

    Args:
        decoder: `BartDecoder`.
        lm_head: hidden states to logits.
        cache: where the rows' keys and values are.
    """

    def __init__(self, decoder: Any, lm_head: torch.nn.Module, cache: KeyValueCache) -> None:
        self._decoder = decoder
        self._lm_head = lm_head
        self._cache = cache
        self._heads = decoder.config.decoder_attention_heads

    def store_encoder_output(self, encoder_output: Tensor, first_row: int, lengths: list[int]) -> None:
        """Compute and keep the cross-attention keys and values of new rows.

        Args:
            encoder_output: (new rows, longest, d_model), padded at the end.
            first_row: where the new rows begin.
            lengths: encoder positions in use, a number a new row.
        """
        rows, longest, _ = encoder_output.shape
        for layer, cache in zip(self._decoder.layers, self._cache.layers, strict=True):
            attention = layer.encoder_attn
            new = slice(first_row, first_row + rows)
            cache.cross_keys[new, :, :longest] = self._split_heads(attention.k_proj(encoder_output))
            cache.cross_values[new, :, :longest] = self._split_heads(attention.v_proj(encoder_output))
        self._cache.set_encoder_lengths(first_row, lengths)

    def step(self, token_ids: list[int], positions: list[int]) -> Tensor:
        """Feed each of the first rows its last token.

        Args:
            token_ids: one a row, the token at `positions`.
            positions: one a row, counted from the decoder start token at 0.

        Returns:
            (rows, vocabulary) float32: the logits of each row's next token.
        """
        rows = len(token_ids)
        device = self._cache.encoder_lengths.device
        tokens, where = torch.tensor([token_ids, positions], device=device)
        self_mask = _mask(where + 1, max(positions) + 1)
        cross_mask = _mask(self._cache.encoder_lengths[:rows], self._cache.longest_encoder_output(rows))
        hidden = self._embed(tokens, where)
        for layer, cache in zip(self._decoder.layers, self._cache.layers, strict=True):
            hidden = self._layer(layer, cache, hidden, where, self_mask, cross_mask)
        logits: Tensor = self._lm_head(hidden).float()
        return logits

    def _embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        table = self._decoder.embed_positions
        embedded = self._decoder.embed_tokens(tokens) + functional.embedding(positions + table.offset, table.weight)
        hidden: Tensor = self._decoder.layernorm_embedding(embedded)
        return hidden

    def _layer(
        self,
        layer: Any,
        cache: LayerCache,
        hidden: Tensor,
        positions: Tensor,
        self_mask: Tensor,
        cross_mask: Tensor,
    ) -> Tensor:
        rows = len(hidden)
        every_row = torch.arange(rows, device=hidden.device)
        attention = layer.self_attn
        cache.self_keys[every_row, :, positions] = self._split_heads(attention.k_proj(hidden)[:, None])[:, :, 0]
        cache.self_values[every_row, :, positions] = self._split_heads(attention.v_proj(hidden)[:, None])[:, :, 0]
        attended = self._attend(attention, hidden, cache.self_keys, cache.self_values, self_mask)
        hidden = layer.self_attn_layer_norm(hidden + attended)
        attended = self._attend(layer.encoder_attn, hidden, cache.cross_keys, cache.cross_values, cross_mask)
        hidden = layer.encoder_attn_layer_norm(hidden + attended)
        fed_forward = layer.fc2(layer.activation_fn(layer.fc1(hidden)))
        normalised: Tensor = layer.final_layer_norm(hidden + fed_forward)
        return normalised

    def _attend(self, attention: Any, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        rows, longest = len(hidden), mask.shape[-1]
        query = self._split_heads(attention.q_proj(hidden)[:, None])
        attended = functional.scaled_dot_product_attention(
            query, keys[:rows, :, :longest], values[:rows, :, :longest], attn_mask=mask
        )
        projected: Tensor = attention.out_proj(attended.reshape(rows, -1))
        return projected

    def _split_heads(self, states: Tensor) -> Tensor:
        """(rows, positions, d_model) -> (rows, heads, positions, head width)."""
        rows, positions, _ = states.shape
        return states.view(rows, positions, self._heads, -1).transpose(1, 2)


def _mask(lengths: Tensor, longest: int) -> Tensor:
    """(rows, 1, 1, longest), true where a row has something to attend to."""
    return (torch.arange(longest, device=lengths.device) < lengths[:, None])[:, None, None]
