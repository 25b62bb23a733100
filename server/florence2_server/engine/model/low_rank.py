"""Low-rank products: what adapters add to the output of a layer, when each row of a batch has its own adapter or none.

The factors of all adapters that target a layer lie in two matrices, one adapter's below the other's. There are two ways
to add the products:

- Rows that follow each other and share an adapter (the positions of a sequence, the pixels of an image) are multiplied
  by that adapter's factors.
- In a decode step each row may have another adapter. All rows are multiplied by the factors of all adapters in the
  batch, and what belongs to another adapter is set to zero in between. With a handful of rows this takes no longer than
  reading the factors, in two products instead of two for each adapter; and its shapes do not depend on which row has
  which adapter, so that it can be recorded as a CUDA graph.

A row without an adapter gets zeros added.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from florence2_server.engine.model.adapter_index import BASE
from florence2_server.engine.model.adapter_tensors import Factors

# Between the columns of two adapters in the batch: reading these takes less time than another call.
_BRIDGED_COLUMNS = 32


class LowRank:
    """The factors of all adapters that target one layer, on the layer's device.

    Args:
        weight: (outputs, inputs) of the layer.
    """

    def __init__(self, weight: Tensor) -> None:
        outputs, inputs = weight.shape
        self.down = weight.new_zeros(0, inputs)
        self.up = weight.new_zeros(0, outputs)
        self.owners = torch.zeros(0, dtype=torch.int64, device=weight.device)
        self.spans: dict[int, slice] = {}

    def put(self, adapter: int, factors: Factors) -> None:
        """Add the factors of an adapter that has none here; `up` may have more outputs than the layer."""
        start = len(self.down)
        outputs = max(self.up.shape[1], len(factors.up))
        down = torch.cat([self.down, factors.down])
        up = torch.cat([_widened(self.up, outputs), _widened(factors.up.t(), outputs)])
        owners = torch.cat([self.owners, self.owners.new_full((len(factors.down),), adapter)])
        # Only now: without memory for one of them, those of the other adapters stay as they are.
        self.down, self.up, self.owners = down, up, owners
        self.spans[adapter] = slice(start, len(down))

    def remove(self, adapter: int) -> None:
        """Remove the factors of an adapter, if it has any."""
        if (span := self.spans.pop(adapter, None)) is None:
            return
        kept = self.owners != adapter
        self.down, self.up, self.owners = self.down[kept], self.up[kept], self.owners[kept]
        rank = span.stop - span.start
        for other, each in self.spans.items():
            if each.start > span.start:
                self.spans[other] = slice(each.start - rank, each.stop - rank)

    def delta(self, adapter: int) -> Tensor:
        """(outputs, inputs): what the adapter adds to the weight."""
        span = self.spans[adapter]
        return self.up[span].t() @ self.down[span]


class BatchAdapters(Protocol):
    """The adapters of a layer's input rows."""

    @property
    def active(self) -> frozenset[int]:
        """The adapters of the batch, without BASE."""
        ...

    def add_products(self, product: Tensor, states: Tensor, low_rank: LowRank) -> None:
        """Add each row's low-rank product to the layer's own.

        Args:
            product: (rows, outputs) of the layer; changed in place.
            states: (rows, inputs) of the layer.
            low_rank: the factors.
        """
        ...


class Segment(NamedTuple):
    """Rows that follow each other, with one adapter."""

    start: int
    end: int | None
    adapter: int


class SegmentAdapters:
    """The adapters of long segments of rows.

    Args:
        segments: those with an adapter; all other rows have none.
    """

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = [segment for segment in segments if segment.adapter != BASE]
        self.active = frozenset(segment.adapter for segment in self._segments)

    @classmethod
    def consecutive(cls, lengths: Sequence[int], adapters: Sequence[int]) -> "SegmentAdapters":
        """Segments of these lengths, each following the one before."""
        segments, start = [], 0
        for length, adapter in zip(lengths, adapters, strict=True):
            segments.append(Segment(start, start + length, adapter))
            start += length
        return cls(segments)

    @classmethod
    def whole(cls, adapter: int) -> "SegmentAdapters":
        """All rows with one adapter."""
        return cls([Segment(0, None, adapter)])

    def add_products(self, product: Tensor, states: Tensor, low_rank: LowRank) -> None:
        """See `BatchAdapters`."""
        for start, end, adapter in self._segments:
            if (span := low_rank.spans.get(adapter)) is not None:
                hidden = states[start:end] @ low_rank.down[span].t()
                _add(product[start:end], hidden, low_rank.up[span])


@dataclass(frozen=True)
class RowAdapters:
    """The adapter of each row of a decode step.

    Attributes:
        indices: (rows,) int64 on the device: each row's adapter, or BASE.
        active: the adapters whose factors are read; at least those of `indices`.
    """

    indices: Tensor
    active: frozenset[int]
    _others: dict[tuple[tuple[int, int, int], ...], Tensor] = field(default_factory=dict)

    def add_products(self, product: Tensor, states: Tensor, low_rank: LowRank) -> None:
        """See `BatchAdapters`."""
        for columns in self._columns(low_rank):
            hidden = states @ low_rank.down[columns].t()
            # Not a multiplication: another adapter's product may overflow in half precision.
            hidden.masked_fill_(self._others_columns(low_rank, columns), 0)
            _add(product, hidden, low_rank.up[columns])

    def _columns(self, low_rank: LowRank) -> list[slice]:
        """The columns of the active adapters, in few slices."""
        merged: list[slice] = []
        spans = (span for adapter, span in low_rank.spans.items() if adapter in self.active)
        for span in sorted(spans, key=lambda span: span.start):
            if merged and span.start - merged[-1].stop <= _BRIDGED_COLUMNS:
                merged[-1] = slice(merged[-1].start, span.stop)
            else:
                merged.append(span)
        return merged

    def _others_columns(self, low_rank: LowRank, columns: slice) -> Tensor:
        """(rows, columns) whether a column belongs to another adapter than the row; the same for many layers."""
        spans = low_rank.spans.items()
        key = tuple(
            (adapter, span.start, span.stop) for adapter, span in spans if columns.start <= span.start < columns.stop
        )
        if key not in self._others:
            self._others[key] = low_rank.owners[columns] != self.indices[:, None]
        return self._others[key]


def _add(product: Tensor, hidden: Tensor, up: Tensor) -> None:
    """Add `hidden @ up`; of an output layer, one of the two may know more tokens."""
    outputs = min(product.shape[1], up.shape[1])
    product[:, :outputs].addmm_(hidden, up[:, :outputs])


def _widened(up: Tensor, outputs: int) -> Tensor:
    return torch.nn.functional.pad(up, (0, outputs - up.shape[1]))
