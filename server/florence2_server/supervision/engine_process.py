"""Starts, reaches and stops the engine process."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
from florence2.engine.v1.engine_pb2_grpc import EngineServiceStub
from florence2_engine.config import EngineConfig

_PACKAGES = Path(__file__).resolve().parents[1]
_STOP_SECONDS = 10.0
# On CPU a torch operation is over when its slowest thread is. Where threads wait by spinning, as is the default, one
# busy process beside the engine holds up each operation for a time slice: decode steps of 40 ms were measured at 350.
_THREADS_SLEEP = {"OMP_WAIT_POLICY": "passive"}


class EngineStartError(Exception):
    """The engine did not start. One line says why."""


class EngineProcess:
    """An engine, from its start on.

    Args:
        config: its settings.
        sockets: the folder in which its socket gets a folder of its own.

    Attributes:
        stub: calls to the engine.

    Raises:
        EngineStartError: there is no room for its socket, or for another process.
    """

    def __init__(self, config: EngineConfig, sockets: Path) -> None:
        try:
            self._folder = Path(tempfile.mkdtemp(dir=sockets))  # nobody else may enter it, and connect
        except OSError as error:
            raise EngineStartError(f"no folder for its socket: {error}") from None
        socket = self._folder / "engine.sock"
        try:
            self._process = _launch(config, socket)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise EngineStartError(f"no process: {error}") from None
        # A message may be as large as the image in it; the engine says what is too large.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=unlimited)
        self.stub = EngineServiceStub(self._channel)

    @classmethod
    def start(cls, config: EngineConfig, sockets: Path) -> "EngineProcess":
        """Start an engine and wait until it has loaded its checkpoint.

        Raises:
            EngineStartError: there is no room for it, the checkpoint cannot be loaded, or the process ended.
        """
        engine = cls(config, sockets)
        try:
            engine.wait_until_ready()
        except EngineStartError:
            engine.stop()
            raise
        return engine

    @property
    def exit_status(self) -> int | None:
        """Of the process; None while it runs."""
        return self._process.poll()

    def wait_until_ready(self, limit: float | None = None) -> None:
        """Wait until the checkpoint is loaded.

        Args:
            limit: seconds; a process that takes longer is killed. None: as long as it takes.

        Raises:
            EngineStartError: it cannot be loaded, or the process ended.
        """
        if limit is None:
            _wait_until_ready(self._process)
            return
        killer = threading.Timer(limit, self.kill)
        killer.start()
        try:
            _wait_until_ready(self._process)
        finally:
            killer.cancel()

    def kill(self) -> None:
        """End the process without asking it. Calls under way end with UNAVAILABLE."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process, unless it has ended, and remove its socket. Calls under way end with UNAVAILABLE."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._channel.close()


def _launch(config: EngineConfig, socket: Path) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-m",
        "florence2_engine",
        "--socket",
        os.fspath(socket),
        "--config",
        config.to_json(),
    ]
    path = os.pathsep.join([os.fspath(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [*command, "--parent", str(os.getpid())],
        env={**_THREADS_SLEEP, **os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_until_ready(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None, "a pipe was asked for"
    report = process.stdout.readline().strip()
    if report == "ready":
        return
    if report.startswith("error: "):
        raise EngineStartError(report.removeprefix("error: "))
    raise EngineStartError(f"the engine process ended with exit status {process.wait()} before it was ready")
