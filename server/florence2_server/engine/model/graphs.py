"""CUDA graphs: device work that is recorded once for each shape, and then replayed with a single launch.

Image encoding and decode steps consist of many small kernels, and launching them one by one takes longer than running
them: a decode step has some two hundred. A graph launches them all at once, but only for the shapes it was recorded
with. So there is a recording for each shape, made when the shape first occurs; if too many shapes occur, inputs are
padded to a few of them.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

_logger = logging.getLogger(__name__)

Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Recording(Generic[Inputs]):
    """Recorded work.

    Attributes:
        inputs: what it reads; overwritten before each replay.
        replay: runs it.
        output: what it writes; overwritten by the next replay.
    """

    inputs: Inputs
    replay: Callable[[], object]
    output: Tensor


class Recorder(Protocol):
    """Runs work on inputs and records it."""

    def __call__(self, run: Callable[[Inputs], Tensor], inputs: Inputs) -> Recording[Inputs]:
        """See `CudaRecorder`."""
        ...


class CudaRecorder:
    """Records work as CUDA graphs of one device.

    The graphs share the memory of their intermediate results, because only one runs at a time; each has its own output.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, run: Callable[[Inputs], Tensor], inputs: Inputs) -> Recording[Inputs]:
        """Record a call. Whatever the host computes during it, such as shapes, is constant from then on."""
        with torch.cuda.device(self._device):  # the current device belongs to a thread; in a new one it is the first
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run(inputs)  # libraries choose their kernels in the first run, which therefore must not be recorded
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile; only this thread's work is recorded and restricted.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = run(inputs)
        self._pool = self._pool or graph.pool()

        def replay() -> None:
            with torch.cuda.device(self._device):
                graph.replay()

        return Recording(inputs, replay, output)


class Padding(Protocol[Inputs]):
    """Decides which shapes are recorded, and makes inputs fit them."""

    def shape(self, inputs: Inputs) -> Hashable:
        """The shape to which inputs are padded. Inputs with the same one share a recording."""
        ...

    def pad(self, inputs: Inputs) -> Inputs:
        """A padded copy of the inputs."""
        ...

    def fill(self, recorded: Inputs, inputs: Inputs) -> None:
        """Overwrite a recording's inputs with these, padded."""
        ...

    def crop(self, output: Tensor, inputs: Inputs) -> Tensor:
        """The part of an output that belongs to the inputs."""
        ...


class NoPadding:
    """Padding of a tensor to its own shape."""

    def shape(self, inputs: Tensor) -> Hashable:
        """See `Padding`."""
        return tuple(inputs.shape)

    def pad(self, inputs: Tensor) -> Tensor:
        """See `Padding`."""
        return inputs.clone()

    def fill(self, recorded: Tensor, inputs: Tensor) -> None:
        """See `Padding`."""
        recorded.copy_(inputs)

    def crop(self, output: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """See `Padding`."""
        return output


class GraphCache(Generic[Inputs]):
    """Runs work by replaying recordings, one for each shape. If recording fails, the work runs without.

    Recordings are kept forever, because each is made for a shape that will occur again; once there are `most` of them,
    further shapes run without.

    Args:
        name: what the work is called in the log.
        run: the work.
        padding: the shapes that are recorded.
        most: the most recordings to keep. Each holds its inputs and its output.
        record: makes a recording.
    """

    def __init__(
        self, name: str, run: Callable[[Inputs], Tensor], padding: Padding[Inputs], most: int, record: Recorder
    ) -> None:
        self._name = name
        self._run = run
        self._padding = padding
        self._most = most
        self._record = record
        self._recordings: dict[Hashable, Recording[Inputs]] = {}
        self._can_record = True

    def __call__(self, inputs: Inputs) -> Tensor:
        """The work's output, which the next call overwrites."""
        recording = self._recording(inputs)
        if recording is None:
            return self._run(inputs)
        self._padding.fill(recording.inputs, inputs)
        recording.replay()
        return self._padding.crop(recording.output, inputs)

    def _recording(self, inputs: Inputs) -> Recording[Inputs] | None:
        """The recording for these inputs, made on first use; None at the limit, or if recording fails."""
        if not self._can_record:
            return None
        shape = self._padding.shape(inputs)
        if shape not in self._recordings and len(self._recordings) < self._most:
            try:
                self._recordings[shape] = self._record(self._run, self._padding.pad(inputs))
            except Exception as error:  # noqa: BLE001 - if the driver cannot record, running slowly beats not running
                _logger.warning("%s cannot be recorded as CUDA graphs, and will run slower: %s", self._name, error)
                self._can_record = False
        return self._recordings.get(shape)
