"""What becomes of Triton's stub when tritonserver is gone without a word, killed or crashed.

The stub would live on, and the engine with it: with the GPU's memory, and with what Triton keeps in /dev/shm. A process
of its own looks after that, this file run as a script, because no thread of the stub's can: a metric's new value is
handed to tritonserver with Python's lock held until it has been taken, and where tritonserver died just then, it never
is.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_LOOK_SECONDS = 0.5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub
_REGION_PREFIX = "triton_python_backend_shm_region_"
_PARENT = 1  # among the fields of /proc/PID/stat behind the name, proc(5)


class Guard:
    """Ends this process when the one that started it is gone.

    Args:
        leftovers: folders that are removed then, or when this process is killed.
    """

    def __init__(self, *leftovers: Path) -> None:
        processes = [str(os.getppid()), str(os.getpid())]
        command = [sys.executable, "-I", "-S", __file__, *processes, *map(os.fspath, leftovers)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def dismiss(self) -> None:
        """There is nothing to look after any more."""
        self._process.terminate()
        self._process.wait()


def _look_after(stub: int, tritonserver: int, leftovers: list[Path]) -> None:
    """Wait until one of the two is gone; the stub goes after tritonserver, and its engine with it."""
    while os.getppid() == stub and _parent_of(stub) == tritonserver:
        time.sleep(_LOOK_SECONDS)
    if os.getppid() == stub:
        sys.stderr.write("tritonserver is gone; so its stub and the engine end\n")
        regions = _regions_of(stub)
        os.kill(stub, signal.SIGKILL)
        for region in regions:
            region.unlink(missing_ok=True)
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _parent_of(process: int) -> int:
    """Whose child a process is; 0 where there is no such process."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return 0
    return int(stat.rsplit(")", 1)[1].split()[_PARENT])


def _regions_of(stub: int) -> list[Path]:
    """The shared memory that Triton made for a stub, which it is told on its command line."""
    arguments = Path(f"/proc/{stub}/cmdline").read_text().split("\0")
    return [_SHARED_MEMORY / argument for argument in arguments if argument.startswith(_REGION_PREFIX)]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; tritonserver stops in order
    _look_after(stub=int(sys.argv[2]), tritonserver=int(sys.argv[1]), leftovers=[Path(each) for each in sys.argv[3:]])
