"""Observes a server from outside: its processes, its metrics, its health."""

import contextlib
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
from florence2 import Client

from tests.server.conftest import children_of

WAIT_SECONDS = 60
ENGINE_ARGUMENT = b"--socket"  # whichever module runs as the engine


def engine_of(server) -> int:
    """The process id of a server's engine, once there is one."""
    for _ in range(WAIT_SECONDS * 20):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process ended meanwhile
            for child in children_of(server.process_id):
                if ENGINE_ARGUMENT in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                    return child
        time.sleep(0.05)
    raise AssertionError("the server has no engine")


def is_gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def seconds_until(condition, limit: float = WAIT_SECONDS) -> float:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit, "the condition did not become true in time"
        time.sleep(0.02)
    return time.monotonic() - begin


def is_alive(server) -> bool:
    with Client(server.grpc_url) as client:
        (health,) = client.health()
    return health.is_alive


def metrics_page(server) -> str:
    url = f"http://{server.host}:{server.ports.metrics}/metrics"
    return str(urllib.request.urlopen(url, timeout=10).read().decode())


def metric(server, name: str, **labels: str) -> float:
    """The value of a metric's only time series with the given labels."""
    (value,) = _values(server, name, labels)
    return value


def metric_sum(server, name: str, **labels: str) -> float:
    """The sum of a metric's time series, of those alone that have the given labels; 0 if there are none."""
    return sum(_values(server, name, labels))


def _values(server, name: str, labels: dict[str, str]) -> list[float]:
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = [line for line in metrics_page(server).splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return [float(line.split()[-1]) for line in lines if all(each in line for each in wanted)]


def requests_counted(server) -> float:
    """The requests of all tasks and outcomes. Each is counted soon after its response, and after its other metrics."""
    return metric_sum(server, "florence2_requests_total")


def requests_counted_at_rest(server) -> float:
    """The requests counted, when none has been for a second: those of an earlier test may still have to be."""
    counted, since = requests_counted(server), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        if (now := requests_counted(server)) != counted:
            counted, since = now, time.monotonic()
    return counted


def resident_bytes(process_ids: list[int]) -> int:
    return sum(psutil.Process(process_id).memory_info().rss for process_id in process_ids)


def shared_bytes(process_id: int) -> int:
    """The resident part of the memory that a process shares with others."""
    return _status_bytes(process_id, "RssShmem")


def stub_of(server) -> int:
    """The process id of the stub that runs a server's engine."""
    return psutil.Process(engine_of(server)).ppid()


def anonymous_bytes(process_id: int) -> int:
    """The resident part of the memory that belongs to a process alone."""
    return _status_bytes(process_id, "RssAnon")


def memory_file_bytes(process_id: int) -> int:
    """The size of the in-memory files (memfd) that a process has open."""
    total = 0
    for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if descriptor.readlink().name.startswith("memfd:"):
                total += descriptor.stat().st_size
    return total


def shared_memory_files(process_id: int) -> set[Path]:
    """The files in /dev/shm that a process has mapped."""
    lines = Path(f"/proc/{process_id}/maps").read_text().splitlines()
    return {Path(line.split(maxsplit=5)[5]) for line in lines if " /dev/shm/" in line and "(deleted)" not in line}


def _status_bytes(process_id: int, field: str) -> int:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Held:
    """The resources that a process holds.

    Attributes:
        resident: resident memory, in bytes.
        descriptors: number of open files, sockets and pipes.
    """

    name: str
    resident: int
    descriptors: int
    threads: int


def held_by(server) -> dict[int, Held]:
    """The resources that tritonserver and each of its descendants hold, by process id."""
    held = {}
    for process_id in [server.process_id, *children_of(server.process_id)]:
        process = psutil.Process(process_id)
        with process.oneshot():
            name = "engine" if "florence2_server.engine" in process.cmdline() else process.name()
            held[process_id] = Held(name, process.memory_info().rss, process.num_fds(), process.num_threads())
    return held
