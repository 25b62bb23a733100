"""Decode steps as CUDA graphs.

A step is some two hundred small kernels, and starting them one by one takes longer than they run. A graph starts them
all at once, but only for the shapes it was recorded with. So steps are padded up to a few sizes, and a graph is
recorded the first time each is met.
"""

import logging
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from florence2_engine.cuda_graphs import Recorder, Recording
from florence2_engine.decoder import Step

_logger = logging.getLogger(__name__)

_LEAST_OWN_LENGTH = 64
_CROSS_LENGTH_STEP = 128
# Each holds its logits: beyond this many, rarer shapes run plainly.
_MOST_GRAPHS = 96


class DecodeStep(Protocol):
    """What runs a decode step: `Decoder.step`, or graphs of it."""

    def __call__(self, step: Step) -> Tensor:
        """See `Decoder.step`."""
        ...


class _Shape(NamedTuple):
    rows: int
    slots: int
    beams: int
    cross_length: int
    own_length: int


class DecodeGraphs:
    """Runs decode steps by replaying recordings; plainly, where recording fails.

    Args:
        run: the plain step.
        slots, rows, positions: the sizes of the caches, which padding must not exceed.
        record: how a step is recorded.
    """

    def __init__(self, run: DecodeStep, slots: int, rows: int, positions: int, record: Recorder) -> None:
        self._run = run
        self._slots = slots
        self._rows = rows
        self._positions = positions
        self._record = record
        self._recordings: dict[_Shape, Recording[Step]] = {}
        self._works = True
        # Whose slots a recording's inputs hold: they stay the same for many steps.
        self._filled: tuple[Recording[Step], Tensor] | None = None

    def __call__(self, step: Step) -> Tensor:
        """See `Decoder.step`. The result is overwritten by the next step."""
        recording = self._recording(step) if self._works else None
        if recording is None:
            return self._run(step)
        self._fill(recording, step)
        recording.replay()
        return recording.output[: len(step.token_ids)]

    def _recording(self, step: Step) -> Recording[Step] | None:
        """The one to replay for a step; None where there is none."""
        shape = self._shape(step)
        if shape not in self._recordings and len(self._recordings) < _MOST_GRAPHS:
            try:
                self._recordings[shape] = self._record(self._run, _padded(step, shape))
            except Exception as error:  # noqa: BLE001 - a driver that cannot: slower is better than not at all
                _logger.warning("decode steps cannot be recorded (%s); they run one kernel at a time", error)
                self._works = False
        return self._recordings.get(shape)

    def _shape(self, step: Step) -> _Shape:
        """The sizes to which a step is padded."""
        slots, beams = step.rows_of_slots.shape
        cross_length = -(-step.cross_mask.shape[-1] // _CROSS_LENGTH_STEP) * _CROSS_LENGTH_STEP
        return _Shape(
            rows=_next_size(len(step.token_ids), self._rows),
            slots=_next_size(slots, self._slots),
            beams=_next_size(beams, self._rows),
            cross_length=min(cross_length, self._positions),
            own_length=_next_size(max(step.own_length, _LEAST_OWN_LENGTH), self._positions),
        )

    def _fill(self, recording: Recording[Step], step: Step) -> None:
        """Let a recording's inputs be what a step is about."""
        inputs, rows = recording.inputs, len(step.token_ids)
        if self._filled is None or self._filled[0] is not recording or self._filled[1] is not step.rows_of_slots:
            padded = _padded(step, self._shape(step))
            for target, source in (
                (inputs.token_ids, padded.token_ids),
                (inputs.positions, padded.positions),
                (inputs.rows_of_slots, padded.rows_of_slots),
                (inputs.places, padded.places),
                (inputs.cross_mask, padded.cross_mask),
            ):
                target.copy_(source)
            self._filled = (recording, step.rows_of_slots)
            return
        inputs.token_ids[:rows].copy_(step.token_ids)
        inputs.positions[:rows].copy_(step.positions)


def _padded(step: Step, shape: _Shape) -> Step:
    """The step with more rows, slots and positions, which change nothing: free rows, and masked positions."""
    slots, beams = step.rows_of_slots.shape
    more_rows, more_slots, more_beams = (
        shape.rows - len(step.token_ids),
        shape.slots - slots,
        shape.beams - beams,
    )
    places = step.places // beams * shape.beams + step.places % beams
    more_positions = shape.cross_length - step.cross_mask.shape[-1]
    cross_mask = functional.pad(step.cross_mask, (0, more_positions), value=-torch.inf)
    return Step(
        token_ids=functional.pad(step.token_ids, (0, more_rows)),
        positions=functional.pad(step.positions, (0, more_rows)),
        rows_of_slots=functional.pad(step.rows_of_slots, (0, more_beams, 0, more_slots)),
        places=functional.pad(places, (0, more_rows)),
        # A slot that is none attends to everything, for attention to nothing is not a number.
        cross_mask=functional.pad(cross_mask, (0, 0, 0, 0, 0, 0, 0, more_slots)),
        own_length=shape.own_length,
    )


def _next_size(size: int, limit: int) -> int:
    """The next power of two, or the limit."""
    return min(1 << (size - 1).bit_length(), limit)
