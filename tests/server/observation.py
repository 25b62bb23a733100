"""Looks at a server from outside: its processes, its metrics, its health."""

import contextlib
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
from florence2 import Client

from tests.server.conftest import children_of

WAIT_SECONDS = 60


def engine_of(server) -> int:
    """The process id of a server's engine; waits for one."""
    for _ in range(WAIT_SECONDS * 20):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a process that ends while it is looked at
            for child in children_of(server.process_id):
                if b"florence2_engine" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                    return child
        time.sleep(0.05)
    raise AssertionError("there is no engine")


def is_gone(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def seconds_until(condition, limit: float = WAIT_SECONDS) -> float:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit, "it did not come to be"
        time.sleep(0.02)
    return time.monotonic() - begin


def is_alive(server) -> bool:
    with Client(server.grpc_url) as client:
        (health,) = client.health()
    return health.is_alive


def metrics_page(server) -> str:
    url = f"http://{server.host}:{server.ports.metrics}/metrics"
    return str(urllib.request.urlopen(url, timeout=10).read().decode())


def metric(server, name: str) -> float:
    (line,) = [line for line in metrics_page(server).splitlines() if line.startswith(name)]
    return float(line.split()[-1])


def questions_counted(server) -> float:
    """Of all tasks and outcomes. A question is counted soon after it was answered, and last of all its figures."""
    counts = [line for line in metrics_page(server).splitlines() if line.startswith("florence2_requests_total{")]
    return sum(float(line.split()[-1]) for line in counts)


def resident_bytes(process_ids: list[int]) -> int:
    return sum(psutil.Process(process_id).memory_info().rss for process_id in process_ids)


def shared_bytes(process_id: int) -> int:
    """Of the memory that a process shares with others, what it has touched."""
    status = Path(f"/proc/{process_id}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssShmem:")]
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Held:
    """What a process holds.

    Attributes:
        resident: memory, in bytes.
        descriptors: open files, sockets and pipes.
    """

    name: str
    resident: int
    descriptors: int
    threads: int


def held_by(server) -> dict[int, Held]:
    """What tritonserver and each of its descendants hold, by process id."""
    held = {}
    for process_id in [server.process_id, *children_of(server.process_id)]:
        process = psutil.Process(process_id)
        with process.oneshot():
            name = "engine" if "florence2_engine" in process.cmdline() else process.name()
            held[process_id] = Held(name, process.memory_info().rss, process.num_fds(), process.num_threads())
    return held
