"""Tritonserver killed, and stopped under load."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.server.conftest import children_of, infer
from tests.server.observation import WAIT_SECONDS, is_gone, seconds_until, stub_of

pytestmark = pytest.mark.faults

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps what it shares with its stub


@pytest.mark.parametrize("frozen", [False, True], ids=["alive", "frozen"])
def test_an_engine_does_not_outlive_a_killed_tritonserver(start_server, tmp_path_factory, frozen, figure):
    """Even if the stub is frozen and cannot react."""
    shared_memory = set(SHARED_MEMORY.iterdir())
    sockets = tmp_path_factory.mktemp("s")
    server = start_server(TMPDIR=str(sockets))
    descendants = children_of(server.process_id)
    if frozen:
        os.kill(stub_of(server), signal.SIGSTOP)
    os.kill(server.process_id, signal.SIGKILL)
    seconds = seconds_until(lambda: all(map(is_gone, descendants)))
    how = ", its stub frozen" if frozen else ""
    figure(f"kill -9 of tritonserver{how}: seconds until all processes are gone", seconds, at_most=5)
    seconds_until(lambda: set(SHARED_MEMORY.iterdir()) <= shared_memory)
    assert list(sockets.iterdir()) == []


def test_accepted_requests_are_answered_after_sigterm(start_server, cases, expected, figure):
    server = start_server()
    pairs = list(zip(cases, expected, strict=True)) * 2
    all_sent = threading.Barrier(len(pairs) + 1)

    def result(pair) -> str:
        with triton.InferenceServerClient(server.grpc_url) as client:
            all_sent.wait(WAIT_SECONDS)
            try:
                return "correct" if infer(client, pair[0].image, pair[0].request).text == pair[1] else "wrong"
            except InferenceServerException as error:
                return str(error.status())

    with ThreadPoolExecutor(len(pairs)) as callers:
        results = [callers.submit(result, pair) for pair in pairs]
        all_sent.wait(WAIT_SECONDS)
        time.sleep(0.1)
        begin = time.monotonic()
        server.stop()
        figure("SIGTERM under load: seconds until the server has ended", time.monotonic() - begin)
        results = [each.result() for each in results]
    figure("SIGTERM under load: accepted requests answered", results.count("correct"))
    assert "wrong" not in results
    # Requests that arrive after the signal are rejected at once; accepted ones are answered.
    assert set(results) <= {"correct", "StatusCode.UNAVAILABLE"}
    assert results.count("correct") > 0
