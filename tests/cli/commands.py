"""The command `florence2`, in this process, as a process of its own, and on a terminal."""

import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from florence2.cli import main

from tests.conftest import ROOT

COMMAND = [sys.executable, "-c", "from florence2.cli import main; main()"]
SECONDS = 60


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def florence2(capsys, monkeypatch):
    """`florence2(*arguments)`: run a command in this process, in the repository's folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")

    def florence2(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ended(ended.value.code, out, err)

    return florence2


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen]:
    """A command as a process of its own, in the repository's folder; killed if it outlives the `with` block."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: object, data: bytes = b"", **environment: str) -> Ended:
    """Run a command as a process of its own, in the repository's folder."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=data,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())


def shell(script: str) -> Ended:
    """Run a bash script in which `florence2` is the command."""
    program = " ".join(f"'{word}'" for word in COMMAND)
    done = subprocess.run(
        ["bash", "-c", f'florence2() {{ {program} "$@"; }}\n{script}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def run_on_a_terminal(*arguments: object, columns: int = 80) -> Ended:
    """Run a command on a pseudo-terminal of that width: everything that it shows is in `out`."""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (40, columns))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT, env=environment
    ) as process:
        os.close(terminal)
        shown = b"".join(iter(lambda: _read(controller), b""))
        status = process.wait(SECONDS)
    os.close(controller)
    return Ended(status, shown.decode().replace("\r\n", "\n"), "")


def _read(controller: int) -> bytes:
    """What a terminal shows next; empty once it is closed."""
    ready, _, _ = select.select([controller], [], [], SECONDS)
    try:
        return os.read(controller, 65536) if ready else b""
    except OSError:  # Linux, if no process has the terminal open
        return b""
