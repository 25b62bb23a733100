"""The vision tower as CUDA graphs: one for each number of images, which have one size each."""

import logging
from collections.abc import Callable

from torch import Tensor

from florence2_engine.cuda_graphs import Recorder, Recording

_logger = logging.getLogger(__name__)

_MOST_GRAPHS = 8


class VisionGraphs:
    """Encodes images by replaying recordings; plainly, where recording fails.

    Args:
        run: the vision tower.
        record: how a call of it is recorded.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], record: Recorder) -> None:
        self._run = run
        self._record = record
        self._recordings: dict[tuple[int, ...], Recording[Tensor]] = {}
        self._works = True

    def __call__(self, pixels: Tensor) -> Tensor:
        """See `VisionTower.__call__`. The result is overwritten by the next call."""
        recording = self._recording(pixels) if self._works else None
        if recording is None:
            return self._run(pixels)
        recording.inputs.copy_(pixels)
        recording.replay()
        return recording.output

    def _recording(self, pixels: Tensor) -> Recording[Tensor] | None:
        shape = tuple(pixels.shape)
        if shape not in self._recordings and len(self._recordings) < _MOST_GRAPHS:
            try:
                self._recordings[shape] = self._record(self._run, pixels.clone())
            except Exception as error:  # noqa: BLE001 - a driver that cannot: slower is better than not at all
                _logger.warning("image encoding cannot be recorded (%s); it runs one kernel at a time", error)
                self._works = False
        return self._recordings.get(shape)
