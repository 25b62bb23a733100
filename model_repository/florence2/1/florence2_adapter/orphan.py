"""What becomes of Triton's stub when tritonserver is gone without a word, killed or crashed.

The stub would live on, and the engine with it: with the GPU's memory, and with what Triton keeps in /dev/shm.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub
_REGION_PREFIX = "triton_python_backend_shm_region_"


def end_with_parent(end_engine: Callable[[], None]) -> None:
    """Watch over the process that started this one; when it is gone, end the engine and this process.

    Args:
        end_engine: called first; has to be quick.
    """
    watch = threading.Thread(target=_watch, args=(os.getppid(), end_engine), name="parent", daemon=True)
    watch.start()


def _watch(parent: int, end_engine: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    _logger.error("tritonserver is gone; so this process and its engine end")
    try:
        end_engine()
        for region in _own_regions():
            region.unlink(missing_ok=True)
    finally:  # not by an exception: other threads may wait for Triton for ever
        os._exit(1)


def _own_regions() -> list[Path]:
    """The shared memory that Triton made for this stub, which it is told on its command line."""
    arguments = Path("/proc/self/cmdline").read_text().split("\0")
    return [_SHARED_MEMORY / argument for argument in arguments if argument.startswith(_REGION_PREFIX)]
