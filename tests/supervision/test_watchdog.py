"""What the watchdog does when a parent is killed, which stands for tritonserver; its child stands for the stub."""

import subprocess
import sys
import time

import psutil
import pytest

WAIT_SECONDS = 10

PARENT = """
import subprocess, sys, time
if subprocess.run([sys.executable, "-c", *sys.argv[1:]]).returncode:  # the child was killed
    time.sleep(60)
"""
BEGIN = """
import ctypes, sys, time
from pathlib import Path
from florence2_server.supervision.watchdog import Watchdog
watchdog = Watchdog(own=Path(sys.argv[1]), shared=Path(sys.argv[2]))
print("ready", flush=True)
"""
ORPHANS = {
    "idle": BEGIN + "time.sleep(60)",
    # PyDLL calls with the GIL held, so that no other thread of the process ever runs again.
    "frozen": BEGIN + "ctypes.PyDLL(None).sleep(60)",
}


@pytest.fixture
def family(tmp_path):
    """`family(script)`: start a parent whose child runs a script, and wait until the child is ready."""
    started = []

    def start(script: str) -> tuple["subprocess.Popen[str]", list[psutil.Process]]:
        command = [sys.executable, "-c", PARENT, script, str(tmp_path / "own"), str(tmp_path / "shared")]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(parent)
        assert parent.stdout.readline() == "ready\n"
        descendants = psutil.Process(parent.pid).children(recursive=True)
        started.extend(descendants)
        return parent, descendants

    (tmp_path / "own").mkdir()
    (tmp_path / "shared").mkdir()
    yield start
    for process in started:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    started[0].stdout.close()
    started[0].wait()


def wait_until(condition) -> None:
    for _ in range(WAIT_SECONDS * 100):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not become true")


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=WAIT_SECONDS)
    assert alive == []


@pytest.mark.parametrize("script", ORPHANS.values(), ids=ORPHANS)
def test_an_orphan_is_killed_and_leaves_nothing(family, tmp_path, script):
    parent, descendants = family(script)
    assert len(descendants) == 2, "the child and its watchdog"
    time.sleep(1)  # the watchdog polls twice a second
    assert all(process.is_running() for process in descendants)
    parent.kill()
    wait_until_gone(descendants)
    assert list(tmp_path.iterdir()) == []


def test_without_its_process_a_watchdog_removes_the_shared_folder_only_once_the_server_is_gone(family, tmp_path):
    parent, (child, watchdog) = family(ORPHANS["frozen"])
    child.kill()
    wait_until(lambda: not (tmp_path / "own").exists())
    time.sleep(1)  # the watchdog polls twice a second
    assert (tmp_path / "shared").exists()
    parent.kill()
    wait_until_gone([watchdog])
    assert list(tmp_path.iterdir()) == []


def test_a_watchdog_can_be_stopped(family):
    parent, _ = family(BEGIN + "watchdog.stop()")
    assert parent.wait(WAIT_SECONDS) == 0
