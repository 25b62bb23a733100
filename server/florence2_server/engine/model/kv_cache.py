"""Keys and values of what decodes: of each beam's own tokens, and of the encoder's output, which beams share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class KeyValueCache:
    """Room for `slots` requests and `rows` beams. It never grows.

    Attributes:
        own: of the beams' own tokens, (layers, keys and values, rows, heads, positions, head width).
        cross: of the encoder's output, (layers, keys and values, slots, heads, positions, head width).
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
        self.own = _zeros((layers, 2, rows, heads, positions, head_width), device, dtype)
        self.cross = _zeros((layers, 2, slots, heads, positions, head_width), device, dtype)
        self._encoder_lengths = [0] * slots

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
        """The memory that all keys and values take."""
        return self.own.nbytes + self.cross.nbytes

    def __str__(self) -> str:
        """Shapes and size, for the log."""
        layers, _, rows, heads, positions, head_width = self.own.shape
        return (
            f"{layers} layers x {heads} heads x {head_width} x {positions} positions x "
            f"({rows} rows + {self.cross.shape[2]} slots), {self.own.dtype}: {self.size_in_bytes / 1e6:,.0f} MB"
        )

    @property
    def device(self) -> torch.device:
        """Where the cache is."""
        return self.own.device

    def encoder_lengths(self, slots: int) -> list[int]:
        """How many encoder positions each of the first slots uses."""
        return self._encoder_lengths[:slots]

    def store_encoder_output(
        self, layer: int, first_slot: int, keys_and_values: Tensor, lengths: Sequence[int]
    ) -> None:
        """Keep what new slots attend to in a layer.

        Args:
            layer: the decoder layer.
            first_slot: where the new slots begin.
            keys_and_values: (keys and values, new slots, heads, longest, head width), padded at the end.
            lengths: encoder positions in use, a number a new slot.
        """
        slots, longest = keys_and_values.shape[1], keys_and_values.shape[3]
        self.cross[layer, :, first_slot : first_slot + slots, :, :longest] = keys_and_values
        self._encoder_lengths[first_slot : first_slot + slots] = lengths

    def move_slot(self, source: int, target: int) -> None:
        """Copy what slot `source` uses to slot `target`."""
        length = self._encoder_lengths[source]
        self.cross[:, :, target, :, :length] = self.cross[:, :, source, :, :length]
        self._encoder_lengths[target] = length

    def copy_row(self, source: int, target: int, first: int, end: int) -> None:
        """Copy the positions from `first` to before `end` of row `source` to row `target`."""
        self.own[:, :, target, :, first:end] = self.own[:, :, source, :, first:end]


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros, not uninitialised memory: attention multiplies masked values by 0, and 0 x NaN is NaN."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, np.float32))  # unlike torch's, pages nobody wrote to take no memory
    return torch.zeros(shape, device=device, dtype=dtype)
