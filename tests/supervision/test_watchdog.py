"""Who is left when a process's parent dies, which stands for tritonserver. The orphan stands for its stub."""

import os
import subprocess
import sys
import time

import psutil
import pytest

WAIT_SECONDS = 10

PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]])
"""
BEGIN = """
import ctypes, sys, time
from pathlib import Path
from florence2_adapter.orphan import Guard
guard = Guard(Path(sys.argv[1]))
print("ready", flush=True)
"""
ORPHANS = {
    "idle": BEGIN + "time.sleep(60)",
    # PyDLL calls with Python's lock held, so that no other thread of the process ever runs again.
    "frozen": BEGIN + "ctypes.PyDLL(None).sleep(60)",
}


@pytest.fixture
def family(tmp_path):
    """Starts a parent whose child runs a script, and which tells of itself when the child is ready."""
    started = []

    def start(script: str) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PARENT, script, str(tmp_path / "sockets")]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(parent)
        assert parent.stdout.readline() == "ready\n"
        descendants = psutil.Process(parent.pid).children(recursive=True)
        started.extend(descendants)
        return parent, descendants

    (tmp_path / "sockets").mkdir()
    yield start
    for process in started:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    started[0].stdout.close()
    started[0].wait()


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=WAIT_SECONDS)
    assert alive == []


@pytest.mark.parametrize("script", ORPHANS.values(), ids=ORPHANS)
def test_an_orphan_ends_and_leaves_nothing(family, tmp_path, script):
    parent, descendants = family(script)
    assert len(descendants) == 2, "the child and its guard"
    time.sleep(1)  # it looks twice a second
    assert all(process.is_running() for process in descendants)
    parent.kill()
    wait_until_gone(descendants)
    assert not (tmp_path / "sockets").exists()


def test_a_guard_does_not_outlive_whom_it_guards(family, tmp_path):
    _, (child, guard) = family(ORPHANS["idle"])
    child.kill()
    wait_until_gone([guard])
    assert not (tmp_path / "sockets").exists()


def test_a_guard_can_be_dismissed(family):
    parent, _ = family(BEGIN + "guard.dismiss()")
    assert parent.wait(WAIT_SECONDS) == 0
