"""BART's encoder over rows of different lengths, without padding.

The layers and weights are transformers' own (`BartEncoder`). Its forward pads every row to the longest and hands
attention a mask. Here the linear layers, nine tenths of the work, see the valid positions of all rows end to end;
attention runs row by row, or in one call where all lengths are equal, and needs no mask. Linear layers are those of
`linear.py`. `python -m benchmarks.encoding` compares the two.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from florence2_engine.linear import linear


class TextEncoder:
    """The text encoder of a model.

    Args:
        model: `Florence2ForConditionalGeneration`, in evaluation mode. Its weights are used, not copied.
    """

    def __init__(self, model: Any) -> None:
        self._encoder = model.model.language_model.encoder
        self._heads = self._encoder.config.encoder_attention_heads
        self._head_width = self._encoder.config.d_model // self._heads

    @torch.inference_mode()
    def __call__(self, embeddings: Tensor, lengths: list[int]) -> Tensor:
        """Encode image and prompt embeddings.

        Args:
            embeddings: (rows, positions, d_model), what is beyond a row's length is not looked at.
            lengths: valid positions, a number a row; the longest is `positions`.

        Returns:
            (rows, positions, d_model), zeros beyond a row's length.
        """
        hidden = torch.cat([self._embed(row[:length]) for row, length in zip(embeddings, lengths, strict=True)])
        for layer in self._encoder.layers:
            hidden = self._layer(layer, hidden, lengths)
        return pad_sequence(list(torch.split(hidden, lengths)), batch_first=True)

    def _embed(self, row: Tensor) -> Tensor:
        """Add the positions to one row's embeddings (length, d_model)."""
        table = self._encoder.embed_positions
        embedded: Tensor = self._encoder.layernorm_embedding(row + table.weight[table.offset : table.offset + len(row)])
        return embedded

    def _layer(self, layer: Any, hidden: Tensor, lengths: list[int]) -> Tensor:
        hidden = layer.self_attn_layer_norm(hidden + self._attend(layer.self_attn, hidden, lengths))
        fed_forward = linear(layer.fc2, layer.activation_fn(linear(layer.fc1, hidden)))
        hidden = layer.final_layer_norm(hidden + fed_forward)
        if hidden.dtype == torch.float16:  # as transformers does, but without asking the device whether it must
            limit = torch.finfo(torch.float16).max - 1000
            hidden = hidden.clamp(-limit, limit)
        return hidden

    def _attend(self, attention: Any, hidden: Tensor, lengths: list[int]) -> Tensor:
        states = [linear(layer, hidden) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        if len(set(lengths)) == 1:
            attended = self._attend_equal(states, len(lengths))
        else:
            by_row = zip(*(torch.split(state, lengths) for state in states), strict=True)
            attended = torch.cat([self._attend_equal(row, 1) for row in by_row])
        return linear(attention.out_proj, attended)

    def _attend_equal(self, states: Sequence[Tensor], rows: int) -> Tensor:
        """Attention of rows of one length. Query, key and value, and the result: (rows x length, d_model)."""
        query, key, value = (state.view(rows, -1, self._heads, self._head_width).transpose(1, 2) for state in states)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(states[0].shape)
