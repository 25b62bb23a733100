"""Starts, reaches and stops the engine process."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
from florence2.v1 import EngineInfo
from google.protobuf import json_format

from florence2_server.config import EngineConfig
from florence2_server.environment import ENGINE_MODULE
from florence2_server.errors import ConfigError
from florence2_server.supervision.socket_path import check_length
from florence2_server.v1.engine_pb2_grpc import EngineServiceStub

_STOP_SECONDS = 10.0
# On CPU a torch operation ends with its slowest thread. If threads spin while they wait, which is the default, a busy
# process beside the engine delays each operation by a time slice: decode steps of 40 ms were measured at 350 ms.
_THREADS_SLEEP = {"OMP_WAIT_POLICY": "passive"}
# Progress bars are no log lines; transformers has none either if the hub's are disabled.
_NO_PROGRESS_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
# tritonserver's setting, so that large messages leave no memory behind. torch reuses the memory of large tensors.
_NOT_INHERITED = ("MALLOC_MMAP_THRESHOLD_",)


class EngineStartError(Exception):
    """The engine did not start. The message says why, in one line."""


class EngineProcess:
    """An engine process, started by the constructor; `wait_until_ready` waits until it has loaded its checkpoint.

    Args:
        config: its settings.
        sockets: the folder in which a folder for its socket is created.

    Attributes:
        stub: the engine's gRPC methods.

    Raises:
        EngineStartError: its socket's folder or its process cannot be created.
    """

    def __init__(self, config: EngineConfig, sockets: Path) -> None:
        try:
            self._folder = Path(tempfile.mkdtemp(dir=sockets))  # accessible to this user only
        except OSError as error:
            raise EngineStartError(f"the folder for its socket cannot be created: {error}") from None
        socket = self._folder / "engine.sock"
        try:
            check_length(socket, "a shorter TMPDIR")
            self._process = _launch(config, socket)
        except (OSError, ConfigError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            reason = f"its process cannot be created: {error}" if isinstance(error, OSError) else str(error)
            raise EngineStartError(reason) from None
        # A message may be as large as the image in it; the engine checks its size.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=unlimited)
        self.stub = EngineServiceStub(self._channel)
        self._is_ready = False

    def exit_status_within(self, seconds: float) -> int | None:
        """The exit status of the process; None if it still runs after so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_until_ready(self, timeout: float) -> EngineInfo:
        """Wait until the checkpoint is loaded. Returns what the engine serves.

        Args:
            timeout: seconds after which the process is killed.

        Raises:
            EngineStartError: the checkpoint cannot be loaded, or the process ended.
        """
        is_late = threading.Event()

        def kill_late() -> None:
            is_late.set()
            self.kill()

        killer = threading.Timer(timeout, kill_late)
        killer.start()
        try:
            info = _wait_until_ready(self._process)
        except EngineStartError:
            if is_late.is_set():
                raise EngineStartError(f"start_seconds: the checkpoint was not loaded within {timeout:g} s") from None
            raise
        finally:
            killer.cancel()
        self._is_ready = True
        return info

    def kill(self) -> None:
        """Kill the process. Calls in flight end with UNAVAILABLE."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process if it still runs, and remove its socket. Calls in flight end with UNAVAILABLE."""
        if not self._is_ready:
            self.kill()  # it notices the end of its standard input only once it is ready
        assert self._process.stdin is not None, "stdin is a pipe"
        self._process.stdin.close()  # it ignores signals that may reach all processes of a server
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._channel.close()


def _launch(config: EngineConfig, socket: Path) -> "subprocess.Popen[str]":
    module = os.environ.get(ENGINE_MODULE) or "florence2_server.engine"
    command = [
        sys.executable,
        *([module] if module.endswith(".py") else ["-m", module]),
        "--socket",
        os.fspath(socket),
        "--config",
        config.to_json(),
    ]
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return subprocess.Popen(
        [*command, "--parent", str(os.getpid())],
        env={**_THREADS_SLEEP, **_NO_PROGRESS_BARS, **inherited},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_until_ready(process: "subprocess.Popen[str]") -> EngineInfo:
    assert process.stdout is not None, "stdout is a pipe"
    report = process.stdout.readline().strip()
    if report.startswith("ready "):
        return json_format.Parse(report.removeprefix("ready "), EngineInfo())
    if report.startswith("error: "):
        raise EngineStartError(report.removeprefix("error: "))
    raise EngineStartError(f"the engine process {describe_exit(process.wait())} before it was ready")


def describe_exit(status: int) -> str:
    """Say how a process ended.

    Args:
        status: its exit status; negative after a signal.
    """
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
