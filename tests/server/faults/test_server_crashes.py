"""Tritonserver killed, and told to stop under load."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.server.conftest import ask, children_of
from tests.server.looks import WAIT_SECONDS, engine_of, is_gone, seconds_until

pytestmark = pytest.mark.faults

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub


@pytest.mark.parametrize("frozen", [False, True], ids=["alive", "frozen"])
def test_an_engine_does_not_outlive_a_killed_tritonserver(start_server, tmp_path_factory, frozen, figure):
    """Also where the stub is in the middle of something that it never comes back from."""
    shared_memory = set(SHARED_MEMORY.iterdir())
    sockets = tmp_path_factory.mktemp("s")
    server = start_server(TMPDIR=str(sockets))
    descendants = children_of(server.process_id)
    if frozen:
        os.kill(psutil.Process(engine_of(server)).ppid(), signal.SIGSTOP)
    os.kill(server.process_id, signal.SIGKILL)
    seconds = seconds_until(lambda: all(map(is_gone, descendants)))
    how = ", its stub frozen" if frozen else ""
    figure(f"kill -9 of tritonserver{how}: seconds until all is gone", seconds, at_most=5)
    seconds_until(lambda: set(SHARED_MEMORY.iterdir()) <= shared_memory)
    assert list(sockets.iterdir()) == []


def test_sigterm_lets_accepted_requests_be_answered(start_server, questions, expected, figure):
    server = start_server()
    asked = list(zip(questions, expected, strict=True)) * 2
    all_sent = threading.Barrier(len(asked) + 1)

    def outcome(pair) -> str:
        with triton.InferenceServerClient(server.grpc_url) as client:
            all_sent.wait(WAIT_SECONDS)
            try:
                return "right" if ask(client, pair[0].image, pair[0].request).text == pair[1] else "wrong"
            except InferenceServerException as error:
                return str(error.status())

    with ThreadPoolExecutor(len(asked)) as callers:
        outcomes = [callers.submit(outcome, pair) for pair in asked]
        all_sent.wait(WAIT_SECONDS)
        time.sleep(0.1)
        begin = time.monotonic()
        server.stop()
        figure("SIGTERM under load: seconds until it is gone", time.monotonic() - begin)
        outcomes = [each.result() for each in outcomes]
    figure("SIGTERM under load: accepted requests answered", outcomes.count("right"))
    assert "wrong" not in outcomes
    # Who came after the signal is told so at once; nobody who was accepted is.
    assert set(outcomes) <= {"right", "StatusCode.UNAVAILABLE"}
    assert outcomes.count("right") > 0
