"""Peak memory of a process and its descendants."""

import threading
from types import TracebackType

import psutil

_PERIOD_SECONDS = 1.0


class PeakMemory:
    """Samples the memory of a process tree while a `with` block runs.

    The measure is proportional set size: shared pages, such as Triton's tensors in shared memory, count once.

    Attributes:
        peak_bytes: the largest sum sampled.
    """

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, sum(map(_resident_bytes, [self._process, *self._descendants()])))
            if self._ended.wait(_PERIOD_SECONDS):
                return

    def _descendants(self) -> list[psutil.Process]:
        try:
            return list(self._process.children(recursive=True))
        except psutil.NoSuchProcess:
            return []


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended after it was listed
        return 0
