"""`florence2-server serve` as an operator runs it: in a session of its own, with a log."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import psutil
from florence2_server.tritonserver import Ports

from tests.server.conftest import START_SECONDS, port_options

STOP_SECONDS = 60
_ENGINE_ARGUMENT = "--socket"  # whichever module runs as the engine


class Foreground:
    """The running command, on free ports but for those that its environment sets.

    Attributes:
        host: the address it listens on.
        ports: the ports it listens on.
        process: the command.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.ports, options = _ports(environment)
        self._log = folder / "log.txt"
        command = [sys.executable, "-m", "florence2_server", "serve", *options, *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_heed_hangups,
            )

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"

    @property
    def log(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def processes(self) -> list[psutil.Process]:
        """The command and all its descendants."""
        command = psutil.Process(self.process.pid)
        return [command, *command.children(recursive=True)]

    def tritonserver(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def engines(self, word: str = "") -> list[psutil.Process]:
        """The engines that have this word on their command lines, such as the name of a folder."""
        found = []
        for process in self.processes():
            try:
                arguments = process.cmdline()
            except psutil.Error:
                continue  # it has ended
            if _ENGINE_ARGUMENT in arguments and word in " ".join(arguments):
                found.append(process)
        return found

    def listening(self) -> set[int]:
        """The TCP ports that its processes listen on."""
        connections = [each for process in self.processes() for each in process.net_connections("tcp")]
        return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}

    def wait_until(self, condition) -> float:
        """Wait while the command runs. Returns the seconds that it took."""
        begin = time.monotonic()
        while not condition():
            assert self.process.poll() is None, "\n".join(self.log)
            assert time.monotonic() - begin < START_SECONDS, "\n".join(self.log)
            time.sleep(0.05)
        return time.monotonic() - begin

    def wait_until_ready(self) -> float:
        """Wait for the line that says so."""
        return self.wait_until(lambda: any("] ready: " in line for line in self.log))

    def wait(self) -> int:
        """Wait for the end. Returns the exit status."""
        return self.process.wait(STOP_SECONDS)


def _heed_hangups() -> None:
    """The tests may run under nohup, whose setting the command would inherit and respect."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _ports(environment: Mapping[str, str]) -> tuple[Ports, list[str]]:
    """Return the ports, and the command's options for those that the environment does not set."""
    variables = {name: f"FLORENCE2_{name.upper()}_PORT" for name in asdict(Ports())}
    given = {name: int(environment[each]) for name, each in variables.items() if each in environment}
    ports = replace(Ports.free(), **given)
    options = zip(variables, port_options(ports), strict=True)
    return ports, [option for name, option in options if name not in given]


@contextmanager
def foreground(folder: Path, *arguments: str, **environment: str) -> Iterator[Foreground]:
    """Run the command; whatever is left of it is killed in the end."""
    command = Foreground(folder, *arguments, **environment)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            left = command.processes()
            command.process.send_signal(signal.SIGTERM)
            try:
                command.wait()
            except subprocess.TimeoutExpired:
                for process in left:
                    process.kill()
                command.process.wait()
