"""Ends Triton's stub, and with it the engine, when tritonserver is killed or crashes.

Otherwise both would keep running, and hold the GPU's memory and Triton's files in /dev/shm. The watchdog is a process
of its own, which runs this file as a script. A thread of the stub could not do it: the stub holds the GIL while it
passes a metric's new value to tritonserver, and holds it forever if tritonserver crashes just then.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_POLL_SECONDS = 0.5
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub
_REGION_PREFIX = "triton_python_backend_shm_region_"
_STATE, _PARENT = 0, 1  # indices among the fields of /proc/PID/stat that follow the name, proc(5)


class Watchdog:
    """Kills this process when its parent process is gone.

    Args:
        own: a folder to remove then, or when this process is killed otherwise.
        shared: a folder of all stubs of the tritonserver, to remove only when that is gone.
    """

    def __init__(self, own: Path | None = None, shared: Path | None = None) -> None:
        processes = [str(os.getppid()), str(os.getpid())]
        folders = [os.fspath(folder or "") for folder in (own, shared)]
        command = [sys.executable, "-I", "-S", __file__, *processes, *folders]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def stop(self) -> None:
        """Stop watching; nothing is removed."""
        self._process.kill()  # it ignores SIGTERM
        self._process.wait()


def _watch(stub: int, tritonserver: int, own: str, shared: str) -> None:
    """Wait until one of the two processes is gone. If it is tritonserver, kill the stub, whose engine follows it."""
    while os.getppid() == stub and parent_of(stub) == tritonserver:
        time.sleep(_POLL_SECONDS)
    if os.getppid() == stub:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())  # the format of florence2_server.log_format
        sys.stderr.write(f"{now} W {os.getpid()} watchdog] tritonserver is gone; killing its stub and the engine\n")
        regions = _regions_of(stub)
        os.kill(stub, signal.SIGKILL)
        for region in regions:
            region.unlink(missing_ok=True)
    _remove(own)
    while parent_of(tritonserver):  # other stubs use the folder that they share
        time.sleep(_POLL_SECONDS)
    _remove(shared)


def _remove(folder: str) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def parent_of(process: int) -> int:
    """The id of a process's parent; 0 if there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[_STATE] == "Z" else int(fields[_PARENT])


def _regions_of(stub: int) -> list[Path]:
    """The shared memory regions that Triton created for a stub; their names are on the stub's command line."""
    arguments = Path(f"/proc/{stub}/cmdline").read_text().split("\0")
    return [_SHARED_MEMORY / argument for argument in arguments if argument.startswith(_REGION_PREFIX)]


if __name__ == "__main__":
    for each in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # they may reach all processes of a server, which then stops in order
        signal.signal(each, signal.SIG_IGN)
    _watch(stub=int(sys.argv[2]), tritonserver=int(sys.argv[1]), own=sys.argv[3], shared=sys.argv[4])
