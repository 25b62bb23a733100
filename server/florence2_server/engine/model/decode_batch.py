"""What a decode step works on, and its padding to the shapes that are recorded as CUDA graphs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.graphs import GraphCache, Recorder

_LEAST_SELF_ATTENTION_LENGTH = 64
_CROSS_ATTENTION_LENGTH_STEP = 128
# Each keeps its logits.
_MOST_GRAPHS = 96


@dataclass(frozen=True)
class DecodeBatch:
    """The inputs of a decode step. Tensors are on the device.

    Attributes:
        token_ids: (rows,) the token that each row is fed.
        positions: (rows,) the token's position, counted from the decoder start token at 0.
        rows_of_slots: (slots, beams) the rows of each slot; padded with any row if a slot has fewer beams.
        beam_indices: (rows,) each row's index into the flattened `rows_of_slots`.
        cross_attention_mask: (slots, 1, 1, longest) added to attention scores: 0 at a slot's encoder positions, -inf
            beyond them.
        self_attention_length: how many self-attention positions are read; greater than all `positions`.
        adapters: (rows,) the adapter of each row, or BASE; None if no row has one.
        active_adapters: the adapters whose factors are read; at least those of the rows.
    """

    token_ids: Tensor
    positions: Tensor
    rows_of_slots: Tensor
    beam_indices: Tensor
    cross_attention_mask: Tensor
    self_attention_length: int
    adapters: Tensor | None = None
    active_adapters: frozenset[int] = frozenset()


def attention_mask(lengths: Tensor, longest: int, dtype: torch.dtype) -> Tensor:
    """(n, 1, 1, longest), to be added to attention scores: 0 at positions below each length, -inf beyond."""
    beyond = torch.arange(longest, device=lengths.device) >= lengths[:, None]
    return torch.zeros(beyond.shape, dtype=dtype, device=lengths.device).masked_fill_(beyond, -torch.inf)[:, None, None]


def decode_graphs(
    run: Callable[[DecodeBatch], Tensor], slots: int, rows: int, positions: int, record: Recorder
) -> GraphCache[DecodeBatch]:
    """Decode steps as recordings of `run`.

    Args:
        run: `Decoder.decode_step`.
        slots: of the key-value cache; padding must not exceed its sizes.
        rows: of the cache.
        positions: of the cache.
        record: makes a recording.
    """
    return GraphCache("decode steps", run, DecodePadding(slots, rows, positions), _MOST_GRAPHS, record)


class _Shape(NamedTuple):
    rows: int
    slots: int
    beams: int
    cross_attention_length: int
    self_attention_length: int


class DecodePadding:
    """Pads decode batches with free rows, free slots and masked positions, none of which changes a result.

    Args:
        slots: of the key-value cache; padding must not exceed its sizes.
        rows: of the cache.
        positions: of the cache.
    """

    def __init__(self, slots: int, rows: int, positions: int) -> None:
        self._slots = slots
        self._rows = rows
        self._positions = positions
        # The inputs that were filled last, and the `rows_of_slots` that they hold.
        self._filled: tuple[DecodeBatch, Tensor] | None = None

    def shape(self, batch: DecodeBatch) -> _Shape:
        """See `Padding`."""
        slots, beams = batch.rows_of_slots.shape
        step = _CROSS_ATTENTION_LENGTH_STEP
        cross_attention_length = -(-batch.cross_attention_mask.shape[-1] // step) * step
        self_attention_length = max(batch.self_attention_length, _LEAST_SELF_ATTENTION_LENGTH)
        return _Shape(
            rows=_next_size(len(batch.token_ids), self._rows),
            slots=_next_size(slots, self._slots),
            beams=_next_size(beams, self._rows),
            cross_attention_length=min(cross_attention_length, self._positions),
            self_attention_length=_next_size(self_attention_length, self._positions),
        )

    def pad(self, batch: DecodeBatch) -> DecodeBatch:
        """See `Padding`."""
        shape = self.shape(batch)
        slots, beams = batch.rows_of_slots.shape
        more_rows, more_slots, more_beams = shape.rows - len(batch.token_ids), shape.slots - slots, shape.beams - beams
        more_positions = shape.cross_attention_length - batch.cross_attention_mask.shape[-1]
        beam_indices = batch.beam_indices // beams * shape.beams + batch.beam_indices % beams
        mask = functional.pad(batch.cross_attention_mask, (0, more_positions), value=-torch.inf)
        return DecodeBatch(
            token_ids=functional.pad(batch.token_ids, (0, more_rows)),
            positions=functional.pad(batch.positions, (0, more_rows)),
            rows_of_slots=functional.pad(batch.rows_of_slots, (0, more_beams, 0, more_slots)),
            beam_indices=functional.pad(beam_indices, (0, more_rows)),
            # Padding slots attend to every position: attention over none is not a number.
            cross_attention_mask=functional.pad(mask, (0, 0, 0, 0, 0, 0, 0, more_slots)),
            self_attention_length=shape.self_attention_length,
            adapters=batch.adapters
            if batch.adapters is None
            else functional.pad(batch.adapters, (0, more_rows), value=BASE),
            active_adapters=batch.active_adapters,
        )

    def fill(self, recorded: DecodeBatch, batch: DecodeBatch) -> None:
        """See `Padding`. While the slots stay the same, as in most steps, only tokens and positions are copied."""
        if self._filled and self._filled[0] is recorded and self._filled[1] is batch.rows_of_slots:
            rows = len(batch.token_ids)
            recorded.token_ids[:rows].copy_(batch.token_ids)
            recorded.positions[:rows].copy_(batch.positions)
            return
        padded = self.pad(batch)
        for name in ("token_ids", "positions", "rows_of_slots", "beam_indices", "cross_attention_mask", "adapters"):
            if (values := getattr(recorded, name)) is not None:
                values.copy_(getattr(padded, name))
        self._filled = recorded, batch.rows_of_slots

    def crop(self, logits: Tensor, batch: DecodeBatch) -> Tensor:
        """See `Padding`."""
        return logits[: len(batch.token_ids)]


def _next_size(size: int, limit: int) -> int:
    """The next power of two, at most the limit."""
    return min(1 << (size - 1).bit_length(), limit)
