"""Keys and values of the requests that decode: of their own tokens and of the encoder's output."""

from collections.abc import Sequence

import torch


class LayerCache:
    """One decoder layer's keys and values, a row a request.

    Attributes:
        self_keys, self_values: of the generated tokens, (slots, heads, positions, head width).
        cross_keys, cross_values: of the encoder's output, (slots, heads, positions, head width).
    """

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device, dtype: torch.dtype) -> None:
        # Zeros, not uninitialised memory: attention multiplies masked values by 0, and 0 x NaN is NaN.
        self.self_keys, self.self_values, self.cross_keys, self.cross_values = (
            torch.zeros(shape, device=device, dtype=dtype) for _ in range(4)
        )


class KeyValueCache:
    """Room for `slots` requests. It never grows.

    Attributes:
        layers: a LayerCache for each decoder layer.
        slots: the number of rows.
        encoder_lengths: (slots,) how many encoder positions of a row are in use.
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        heads: int,
        positions: int,
        head_width: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (slots, heads, positions, head_width)
        self.slots = slots
        self.layers = [LayerCache(shape, device, dtype) for _ in range(layers)]
        self.encoder_lengths = torch.zeros(slots, device=device, dtype=torch.long)
        self._host_encoder_lengths = [0] * slots

    def longest_encoder_output(self, rows: int) -> int:
        """The most encoder positions that any of the first `rows` rows uses, without asking the device."""
        return max(self._host_encoder_lengths[:rows])

    def set_encoder_lengths(self, first_row: int, lengths: Sequence[int]) -> None:
        """Say how many encoder positions the rows from `first_row` on use."""
        end = first_row + len(lengths)
        self._host_encoder_lengths[first_row:end] = lengths
        self.encoder_lengths[first_row:end] = torch.tensor(lengths, device=self.encoder_lengths.device)

    def move(self, source: int, target: int, self_positions: int) -> None:
        """Copy what row `source` uses (its first `self_positions` own tokens) to row `target`."""
        encoder_positions = self._host_encoder_lengths[source]
        for layer in self.layers:
            for tensor in (layer.self_keys, layer.self_values):
                tensor[target, :, :self_positions] = tensor[source, :, :self_positions]
            for tensor in (layer.cross_keys, layer.cross_values):
                tensor[target, :, :encoder_positions] = tensor[source, :, :encoder_positions]
        self.set_encoder_lengths(target, [encoder_positions])
