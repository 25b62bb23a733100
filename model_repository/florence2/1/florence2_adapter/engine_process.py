"""Starts, reaches and stops the engine process."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeAlias

import grpc
from florence2.engine.v1.engine_pb2 import GenerateResponse
from florence2.engine.v1.engine_pb2_grpc import EngineServiceStub
from florence2_engine.config import EngineConfig

EngineCall: TypeAlias = "grpc.Future[GenerateResponse]"

_PACKAGES = Path(__file__).resolve().parents[1]
_STOP_SECONDS = 10.0
# On CPU a torch operation is over when its slowest thread is. Where threads wait by spinning, as is the default, one
# busy process beside the engine holds up each operation for a time slice: decode steps of 40 ms were measured at 350.
_THREADS_SLEEP = {"OMP_WAIT_POLICY": "passive"}


class EngineStartError(Exception):
    """The engine did not start. One line says why."""


class EngineProcess:
    """A running engine.

    Attributes:
        stub: calls to the engine.
    """

    def __init__(self, process: "subprocess.Popen[str]", socket: Path) -> None:
        self._process = process
        self._socket = socket
        # A message may be as large as the image in it; the engine says what is too large.
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=unlimited)
        self.stub = EngineServiceStub(self._channel)

    @classmethod
    def start(cls, config: EngineConfig) -> "EngineProcess":
        """Start an engine and wait until it has loaded its checkpoint.

        Raises:
            EngineStartError: the checkpoint cannot be loaded, or the process ended.
        """
        folder = Path(tempfile.mkdtemp(prefix="florence2-engine-"))  # nobody else may enter it, so nobody may connect
        socket = folder / "engine.sock"
        process = _launch(config, socket)
        try:
            _wait_until_ready(process)
        except EngineStartError:
            _end(process, folder)
            raise
        return cls(process, socket)

    def stop(self) -> None:
        """End the process and remove its socket. Calls under way end with UNAVAILABLE."""
        _end(self._process, self._socket.parent)
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


def _end(process: "subprocess.Popen[str]", folder: Path) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)
