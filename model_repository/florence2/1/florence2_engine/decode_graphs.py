"""Decode steps as CUDA graphs.

A step is some two hundred small kernels, and starting them one by one takes longer than they run. A graph starts them
all at once, but only for the shapes it was recorded with. So steps are padded up to a few sizes, and a graph is
recorded the first time each is met.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from florence2_engine.decoder import Step

_logger = logging.getLogger(__name__)

_LEAST_OWN_LENGTH = 64
_CROSS_LENGTH_STEP = 128
# Each holds its intermediate results: beyond this many, rarer shapes run plainly.
_MOST_GRAPHS = 96


class DecodeStep(Protocol):
    """What runs a decode step: `Decoder.step`, or graphs of it."""

    def __call__(self, step: Step) -> Tensor:
        """See `Decoder.step`."""
        ...


@dataclasses.dataclass(frozen=True)
class Recording:
    """A recorded step.

    Attributes:
        inputs: what it reads, overwritten before each replay.
        replay: runs it.
        logits: what it writes.
    """

    inputs: Step
    replay: Callable[[], None]
    logits: Tensor


def record_cuda_graph(run: DecodeStep, step: Step) -> Recording:
    """Record a step on the current CUDA device."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(step)  # libraries choose their kernels at the first run, which must not be the recorded one
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = run(step)
    return Recording(step, graph.replay, logits)


class DecodeGraphs:
    """Runs decode steps by replaying recordings; plainly, where recording fails.

    Args:
        run: the plain step.
        slots, rows, positions: the sizes of the caches, which padding must not exceed.
        record: how a step is recorded.
    """

    def __init__(
        self,
        run: DecodeStep,
        slots: int,
        rows: int,
        positions: int,
        record: Callable[[DecodeStep, Step], Recording] = record_cuda_graph,
    ) -> None:
        self._run = run
        self._slots = slots
        self._rows = rows
        self._positions = positions
        self._record = record
        self._recordings: dict[tuple[int, ...], Recording] = {}
        self._works = True

    def __call__(self, step: Step) -> Tensor:
        """See `Decoder.step`. The result is overwritten by the next step."""
        if not self._works:
            return self._run(step)
        padded = self._padded(step)
        shape = (len(padded.token_ids), *padded.rows_of_slots.shape, padded.cross_mask.shape[-1], padded.own_length)
        recording = self._recordings.get(shape)
        if recording is None:
            if len(self._recordings) >= _MOST_GRAPHS:
                return self._run(step)
            try:
                recording = self._record(self._run, padded)
            except Exception as error:  # noqa: BLE001 - a driver that cannot: slower is better than not at all
                _logger.warning("decode steps cannot be recorded (%s); they run one kernel at a time", error)
                self._works = False
                return self._run(step)
            self._recordings[shape] = recording
        for target, source in zip(_tensors(recording.inputs), _tensors(padded), strict=True):
            target.copy_(source)
        recording.replay()
        return recording.logits[: len(step.token_ids)]

    def _padded(self, step: Step) -> Step:
        """The step with more rows, slots and positions, which change nothing: free rows, and masked positions."""
        slots, beams = step.rows_of_slots.shape
        rows = len(step.token_ids)
        more_rows = _next_size(rows, self._rows) - rows
        more_slots = _next_size(slots, self._slots) - slots
        more_beams = _next_size(beams, self._rows) - beams
        longest = step.cross_mask.shape[-1]
        cross_length = min(-(-longest // _CROSS_LENGTH_STEP) * _CROSS_LENGTH_STEP, self._positions)
        places = step.places // beams * (beams + more_beams) + step.places % beams
        cross_mask = functional.pad(step.cross_mask, (0, cross_length - longest), value=-torch.inf)
        return Step(
            token_ids=functional.pad(step.token_ids, (0, more_rows)),
            positions=functional.pad(step.positions, (0, more_rows)),
            rows_of_slots=functional.pad(step.rows_of_slots, (0, more_beams, 0, more_slots)),
            places=functional.pad(places, (0, more_rows)),
            # A slot that is none attends to everything, for attention to nothing is not a number.
            cross_mask=functional.pad(cross_mask, (0, 0, 0, 0, 0, 0, 0, more_slots)),
            own_length=_next_size(max(step.own_length, _LEAST_OWN_LENGTH), self._positions),
        )


def _tensors(step: Step) -> list[Tensor]:
    values: list[Any] = [getattr(step, field.name) for field in dataclasses.fields(step)]
    return [value for value in values if isinstance(value, Tensor)]


def _next_size(size: int, limit: int) -> int:
    """The next power of two, or the limit."""
    return min(1 << (size - 1).bit_length(), limit)
