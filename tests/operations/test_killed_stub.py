"""A stub that is killed: on the metrics page, in the log, and while the server stops."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest
from florence2 import Client
from florence2.errors import Florence2Error, ServerError
from florence2.v1 import TaskRequest
from florence2_server.addresses import Ports
from florence2_server.served_model import ServedModel
from florence2_server.tritonserver import TritonServer

from tests.conftest import EXAMPLE_SCENE
from tests.operations.probes import engines_of_model, probing
from tests.server.conftest import START_SECONDS
from tests.server.observation import metric, metric_sum, seconds_until


@pytest.fixture(scope="module")
def without_health(tmp_path_factory):
    """The models "captions" and "documents" in a server whose gRPC health is off, and its log."""
    log_file = tmp_path_factory.mktemp("killed") / "log.txt"
    models = [ServedModel("captions"), ServedModel("documents")]
    environment = {"FLORENCE2_SLOTS": "2", "FLORENCE2_THREADS": "1"}
    ports = replace(Ports.free(), grpc_health=0)
    with (
        log_file.open("wb") as log,
        TritonServer(ports, environment=environment, log=log, models=models) as server,
    ):
        server.wait_until_ready(START_SECONDS)
        yield server, log_file


def stub_ups(server: TritonServer) -> list[float]:
    return [metric(server, "florence2_stub_up", model=model, engine="0") for model in ("captions", "documents")]


def test_a_stub_that_is_killed_is_on_the_metrics_page_and_in_the_log_and_the_other_model_answers(
    without_health, figure
):
    server, log_file = without_health
    with probing(server) as probes, Client(server.grpc_url, model="documents") as documents:
        seconds_until(lambda: probes.get("/ready") == 200 and stub_ups(server) == [1, 1])
        assert "stub does not respond" not in log_file.read_text(), "none was missed while the models were loaded"
        os.kill(psutil.Process(engines_of_model(server, "captions")[0]).ppid(), signal.SIGKILL)
        begin = time.monotonic()
        until_503 = seconds_until(lambda: probes.get("/live") == 503)
        seconds_until(lambda: stub_ups(server) == [0, 1])
        figure("seconds from kill -9 of one of two stubs until florence2_stub_up is 0", time.monotonic() - begin, 2.0)
        figure("seconds from kill -9 of one of two stubs until /live is 503", until_503, 2.0)
        assert metric(server, "florence2_engine_up", model="captions") == 1, "frozen, which is why there is another"
        for _ in range(20):
            assert (probes.get("/live/documents"), probes.get("/ready/documents")) == (200, 200)
            assert documents.read_text(EXAMPLE_SCENE).text == "CAFE OPEN"
            time.sleep(0.1)
        assert probes.get("/live/captions") == 503
    lines = [line for line in log_file.read_text().splitlines() if "its stub does not respond" in line]
    assert len(lines) == 1, "not one for each observation"
    assert re.search(r" E .*captions: engine 0: ", lines[0])


def test_a_server_whose_stub_was_killed_with_a_request_in_flight_stops_late(without_health, figure):
    server, _ = without_health
    with (
        Client(server.grpc_url, model="captions", retry=None) as captions,
        pytest.raises(ServerError, match="is not healthy"),
    ):
        captions.read_text(EXAMPLE_SCENE)
    stub = psutil.Process(engines_of_model(server, "documents")[0]).ppid()
    long = TaskRequest(caption={}, generation={"min_new_tokens": 1000, "max_new_tokens": 1000})
    with Client(server.grpc_url, model="documents", retry=None) as documents, ThreadPoolExecutor(1) as callers:
        call = callers.submit(documents.run, EXAMPLE_SCENE, long)
        seconds_until(lambda: metric(server, "florence2_slots_in_use", model="documents") == 1)
        os.kill(stub, signal.SIGKILL)
        seconds_until(lambda: stub_ups(server) == [0, 0])
        begin = time.monotonic()
        server.terminate()
        status = server.process.wait(180)
        figure("seconds from SIGTERM to the end, if a killed stub had a request", time.monotonic() - begin)
        figure("its exit status", status)
        assert isinstance(call.exception(), Florence2Error)


def test_stubs_are_watched_without_ports_for_health_and_none_is_missed_when_the_server_stops(tmp_path):
    log_file = tmp_path / "log.txt"
    ports = replace(Ports.free(), health=0, grpc_health=0)
    with log_file.open("wb") as log, TritonServer(ports, log=log) as server:
        server.wait_until_ready(START_SECONDS)
        assert seconds_until(lambda: metric_sum(server, "florence2_stub_up", model="florence2", engine="0") == 1) < 5
    assert server.process.returncode == 0
    assert "stub does not respond" not in log_file.read_text()
