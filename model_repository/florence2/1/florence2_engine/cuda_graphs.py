"""Work on a GPU that is recorded once and then started as a whole: CUDA graphs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Recording(Generic[Inputs]):
    """Recorded work.

    Attributes:
        inputs: what it reads, overwritten before each replay.
        replay: runs it.
        output: what it writes; the next replay overwrites it.
    """

    inputs: Inputs
    replay: Callable[[], object]
    output: Tensor


class Recorder(Protocol):
    """Runs work over inputs and makes a recording of it."""

    def __call__(self, run: Callable[[Inputs], Tensor], inputs: Inputs) -> Recording[Inputs]:
        """See `CudaRecorder`."""
        ...


class CudaRecorder:
    """Records work as CUDA graphs of one device.

    They share the memory of their intermediate results, since one runs after another; each has its own output.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, run: Callable[[Inputs], Tensor], inputs: Inputs) -> Recording[Inputs]:
        """Record a call. What is computed on the host in it, such as shapes, is fixed from then on."""
        with torch.cuda.device(self._device):  # what is current belongs to a thread, and is the first GPU in a new one
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                run(inputs)  # libraries choose their kernels at the first run, which must not be the recorded one
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile: only what this one does is recorded, or forbidden to it.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = run(inputs)
        self._pool = self._pool or graph.pool()

        def replay() -> None:
            with torch.cuda.device(self._device):
                graph.replay()

        return Recording(inputs, replay, output)
