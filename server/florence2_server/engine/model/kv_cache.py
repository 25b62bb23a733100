"""The key-value cache of the decoder: self-attention per row, cross-attention per slot, shared by the slot's beams."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class KeyValueCache:
    """Keys and values for `slots` generations and `rows` beams. Its size is fixed.

    Beyond the positions that a generation uses, there are zeros: attention multiplies masked values by 0, and 0 x NaN
    is NaN. What a former generation left there, which may be NaN after an overflow, is therefore overwritten.

    Attributes:
        self_attention: (layers, keys and values, rows, heads, positions, head width).
        cross_attention: (layers, keys and values, slots, heads, positions, head width).
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        rows: int,
        heads: int,
        positions: int,
        head_width: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.self_attention = _zeros((layers, 2, rows, heads, positions, head_width), device, dtype)
        self.cross_attention = _zeros((layers, 2, slots, heads, positions, head_width), device, dtype)
        self._encoder_lengths = [0] * slots
        self._row_lengths = [0] * rows

    @classmethod
    def of(cls, model: Any, slots: int, rows: int, positions: int, device: torch.device) -> "KeyValueCache":
        """The cache for the decoder of a `Florence2ForConditionalGeneration`; on device `meta` it takes no memory."""
        text = model.config.text_config
        return cls(
            layers=text.decoder_layers,
            slots=slots,
            rows=rows,
            heads=text.decoder_attention_heads,
            positions=positions,
            head_width=text.d_model // text.decoder_attention_heads,
            device=device,
            dtype=model.dtype,
        )

    @property
    def size_in_bytes(self) -> int:
        """The memory of all keys and values."""
        return self.self_attention.nbytes + self.cross_attention.nbytes

    def __str__(self) -> str:
        """Shapes and size, for the log."""
        layers, _, rows, heads, positions, head_width = self.self_attention.shape
        return (
            f"{layers} layers x {heads} heads x {head_width} x {positions} positions x "
            f"({rows} rows + {self.cross_attention.shape[2]} slots), {self.self_attention.dtype}: "
            f"{self.size_in_bytes / 1e6:,.0f} MB"
        )

    def encoder_lengths(self, slots: int) -> list[int]:
        """The number of encoder positions of each of the first slots."""
        return self._encoder_lengths[:slots]

    def start_slots(self, first_slot: int, lengths: Sequence[int]) -> None:
        """Have new slots with these numbers of encoder positions, whose keys and values have yet to be stored."""
        for slot, length in enumerate(lengths, first_slot):
            self._resize_slot(slot, length)

    def store_cross_attention(self, layer: int, first_slot: int, keys_and_values: Tensor) -> None:
        """Store a layer's cross-attention keys and values of slots that have been started.

        Args:
            layer: index of the decoder layer.
            first_slot: the first of the slots; the others follow it.
            keys_and_values: (keys and values, new slots, heads, longest, head width), padded at the end.
        """
        for slot, of_slot in enumerate(keys_and_values.unbind(1), first_slot):
            length = self._encoder_lengths[slot]
            self.cross_attention[layer, :, slot, :, :length] = of_slot[:, :, :length]

    def move_slot(self, source: int, target: int) -> None:
        """Copy the positions that slot `source` uses to slot `target`."""
        length = self._encoder_lengths[source]
        self.cross_attention[:, :, target, :, :length] = self.cross_attention[:, :, source, :, :length]
        self._resize_slot(target, length)

    def extend_rows(self, positions: Sequence[int]) -> None:
        """Have the first rows end with these positions, whose keys and values have yet to be stored.

        A row that ended beyond its position belongs to a new beam.
        """
        for row, position in enumerate(positions):
            self._resize_row(row, position + 1)

    def copy_row(self, source: int, target: int, first: int, end: int) -> None:
        """Copy positions `first` to `end` (exclusive) of row `source` to row `target`, which then has no others."""
        self.self_attention[:, :, target, :, first:end] = self.self_attention[:, :, source, :, first:end]
        self._resize_row(target, end)

    def _resize_slot(self, slot: int, length: int) -> None:
        if (former := self._encoder_lengths[slot]) > length:
            self.cross_attention[:, :, slot, :, length:former] = 0
        self._encoder_lengths[slot] = length

    def _resize_row(self, row: int, length: int) -> None:
        if (former := self._row_lengths[row]) > length:
            self.self_attention[:, :, row, :, length:former] = 0
        self._row_lengths[row] = length


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    if device.type == "cpu" and dtype == torch.float32:
        # Unlike torch's zeros, numpy's take no memory until they are written to.
        return torch.from_numpy(np.zeros(shape, np.float32))
    return torch.zeros(shape, device=device, dtype=dtype)
