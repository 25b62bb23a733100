"""Runs tritonserver in the foreground: forwards signals, waits for its end, and repeats why it could not start.

The command and the entry point of the images stay the parent process of tritonserver.
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import threading
import time
from typing import IO

from florence2_server.log_format import set_up_logging
from florence2_server.supervision.watchdog import parent_of
from florence2_server.tritonserver import StartError, TritonServer, describe_end

_logger = logging.getLogger("florence2_server")

_READY_POLL_SECONDS = 0.2
_PR_SET_CHILD_SUBREAPER = 36
# A watchdog notices within half a second that tritonserver is gone.
_LAST_LINES_SECONDS = 5.0
# What tritonserver prints to standard output, beside its log, when it is signaled.
_SIGNAL_LINE = b"Signal ("


def run(server: TritonServer) -> int:
    """Run a server until it ends. SIGTERM and SIGINT stop it once it has answered the requests in flight.

    SIGHUP, which a terminal sends when it closes, does the same unless it is ignored. Must be called in the main
    thread.

    Returns:
        The exit status of tritonserver, or as in a shell 128 + N if signal N ended it; 0 if it was stopped while it
        started.

    Raises:
        StartError: there is no tritonserver.
    """
    is_stopping = threading.Event()

    def stop(*_: object) -> None:
        is_stopping.set()
        server.terminate()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, stop)
    try:
        return _run(server, is_stopping)
    finally:
        server.stop()


def _run(server: TritonServer, is_stopping: threading.Event) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    others = _children()  # of a shell that was replaced by this process
    process = server.start(stdout=subprocess.PIPE, ends_with_parent=True)
    if is_stopping.is_set():  # between the two lines above
        server.terminate()
    signal.signal(signal.SIGCHLD, lambda *_: _reap_orphans(process.pid))
    set_up_logging()
    assert process.stdout is not None, "stdout is a pipe"
    relay = threading.Thread(target=_relay, args=(process.stdout,), name="standard output", daemon=True)
    relay.start()
    was_ready = _wait_until_ready(server, is_stopping)
    status = process.wait()
    relay.join(_LAST_LINES_SECONDS)  # the reason is to be the last line
    _kill_orphans(others)
    if status == 0 or (is_stopping.is_set() and status == -signal.SIGTERM):  # as it ends before it is ready
        return 0
    _logger.error("%s", _reason(server, status, was_ready=was_ready))
    return status if status > 0 else 128 - status


def _wait_until_ready(server: TritonServer, is_stopping: threading.Event) -> bool:
    """Log where the server can be reached once it is ready. Returns False if it ends or is stopped before."""
    while not is_stopping.is_set():
        try:
            if server.is_ready():
                _logger.info("ready: gRPC at %s, HTTP at %s", server.grpc_url, server.http_url)
                return True
        except StartError:
            return False
        time.sleep(_READY_POLL_SECONDS)
    return False


def _reason(server: TritonServer, status: int, *, was_ready: bool) -> str:
    if was_ready:
        return describe_end(status)
    return server.start_error or f"{describe_end(status)} before it was ready; the lines above say why"


def _relay(output: IO[bytes]) -> None:
    """Log what is printed to standard output. It ends with tritonserver, its stubs and their watchdogs."""
    for line in output:
        if not line.startswith(_SIGNAL_LINE):
            _logger.info("%s", line.decode(errors="replace").rstrip())


def _reap_orphans(tritonserver: int) -> None:
    """Reap processes whose parents ended before them, which this process inherits."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == tritonserver:
            return
        os.waitpid(ended.si_pid, 0)


def _kill_orphans(others: set[int]) -> None:
    """Kill stubs that outlive tritonserver. Their watchdogs do, except that of a stub which had not started its own.

    Args:
        others: the children of this process that are not the server's.
    """
    for process in _children() - others:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(process, signal.SIGKILL)


def _children() -> set[int]:
    """The ids of this process's children."""
    processes = map(int, filter(str.isdigit, os.listdir("/proc")))  # noqa: PTH208 - names, not paths
    return {process for process in processes if parent_of(process) == os.getpid()}
