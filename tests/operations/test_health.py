"""Health as probes, load balancers and people see it: while models load, after crashes, behind proxies, over IPv6."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from florence2 import Client
from florence2_server.addresses import Hosts, Ports
from florence2_server.repository import write_model
from florence2_server.served_model import ServedModel
from florence2_server.tritonserver import TritonServer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.operations import slow_engine
from tests.operations.probes import DIRECT, PROBE_SECONDS, Probes, engines_of_model, probing
from tests.server.conftest import START_SECONDS, children_of
from tests.server.observation import engine_of, seconds_until, stub_of

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
DEAD_PROXY = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "all_proxy"), "http://127.0.0.1:1")
PROBE = [sys.executable, "-c", "from florence2.cli import main; main()", "health"]


def command(url: str, *options: str) -> tuple[int, str, float]:
    """Run `florence2 health` behind a proxy that is not there. Returns its exit status, its line and its seconds."""
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | DEAD_PROXY
    begin = time.monotonic()
    finished = subprocess.run(
        [*PROBE, "--url", url, *options], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return finished.returncode, finished.stdout.strip(), time.monotonic() - begin


@pytest.fixture(scope="module")
def loading(tmp_path_factory):
    """A server on IPv4 and IPv6 whose engine waits for a file before it loads the checkpoint, and the file."""
    go = tmp_path_factory.mktemp("go") / "go"
    environment = {"FLORENCE2_ENGINE_MODULE": slow_engine.__file__, slow_engine.GO: str(go)}
    with (
        (go.parent / "log.txt").open("wb") as log,
        TritonServer(environment=environment, log=log, hosts=Hosts.all_at("::")) as server,
    ):
        yield server, go
        server.process.kill()  # tests have killed a stub, for which Triton would wait


@pytest.fixture(scope="module")
def server(loading):
    """The same server, ready."""
    started, go = loading
    go.touch()
    started.wait_until_ready(START_SECONDS)
    return started


def test_a_server_that_loads_is_alive_and_not_ready_and_says_so_before_triton_does(loading, figure):
    server, _ = loading
    with probing(server) as probes:
        figure(
            "seconds from the start of tritonserver until its health is answered", seconds_until(lambda: probes.is_up)
        )
        engine_of(server)  # waits for it
        assert (probes.get("/"), probes.get("/live"), probes.get("/ready")) == (200, 200, 503)
        assert (probes.get("/live/florence2"), probes.get("/ready/florence2")) == (200, 503)
        assert (probes.check("live"), probes.check(""), probes.check("florence2")) == (
            SERVING,
            NOT_SERVING,
            NOT_SERVING,
        )
        with pytest.raises(OSError, match="refused"):
            DIRECT.open(f"{server.http_url}/v2/health/live", timeout=PROBE_SECONDS)
        status, line, _ = command(probes.http_url)
        assert (status, line.split(";")[0]) == (0, "healthy: server live, model not ready, engine starting")
        assert command(probes.http_url, "--ready")[0] == 1


def test_once_it_is_loaded_all_ports_say_so_and_what_is_served(server, figure):
    with probing(server) as probes:
        figure(
            "seconds from Triton's readiness until /ready is 200", seconds_until(lambda: probes.get("/ready") == 200)
        )
        assert [probes.check(name) for name in ("", "florence2", "live", "live/florence2")] == [SERVING] * 4
        with Client(server.grpc_url) as client:
            (info,) = client.server_info()
            (health,) = client.health()
        assert health.info == info
        (engine,) = info.engines
        assert (engine.name, engine.state, engine.device, engine.dtype) == ("0", "running", "cpu", "float32")
        with DIRECT.open(f"{probes.http_url}/", timeout=PROBE_SECONDS) as response:
            (shown,) = json.loads(response.read())["models"]["florence2"]["engines"]
        assert (shown["checkpoint"], shown["slots"]) == (engine.checkpoint, engine.slots)


def test_the_command_needs_no_proxy_and_prints_what_is_served(server, figure):
    ports = server.ports
    urls = {
        "Triton's gRPC": f"[::1]:{ports.grpc}",
        "Triton's HTTP": f"http://[::1]:{ports.http}",
        "the port for health": f"http://[::1]:{ports.health}",
        "the port for health, over IPv4": f"http://127.0.0.1:{ports.health}",
    }
    for name, url in urls.items():
        status, line, seconds = command(url, "--ready")
        figure(f"seconds of `florence2 health` by {name}", seconds, 1.0)
        assert (status, line.split(";")[0]) == (0, "healthy: server live, model ready, engine running")
        assert "on cpu in float32 with" in line


def states(probes: Probes, model: str) -> list[str]:
    """The states of a model's engines, sorted."""
    with DIRECT.open(f"{probes.http_url}/", timeout=PROBE_SECONDS) as response:
        return sorted(engine["state"] for engine in json.loads(response.read())["models"][model]["engines"])


class Watch:
    """The statuses of a service as a watcher sees them, with the time of each."""

    def __init__(self, stub: HealthStub, service: str) -> None:
        self._call = stub.Watch(HealthCheckRequest(service=service))
        self.seen: list[tuple[int, float]] = [(next(self._call).status, time.monotonic())]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for response in self._call:
                self.seen.append((response.status, time.monotonic()))

    def stop(self) -> None:
        self._call.cancel()
        self._thread.join()


def test_after_kill_9_of_the_engine_no_probe_says_ready_until_the_next_one_runs(server, figure):
    engine = engine_of(server)
    with probing(server) as probes:
        watch = Watch(probes.stub, "")
        alive = Watch(probes.stub, "live")
        os.kill(engine, signal.SIGKILL)
        killed = time.monotonic()
        until_503 = seconds_until(lambda: probes.get("/ready") == 503)
        assert (probes.get("/live"), probes.check("live")) == (200, SERVING)
        until_200 = seconds_until(lambda: probes.get("/ready") == 200) + until_503
        seconds_until(lambda: len(watch.seen) == 3)
        watch.stop()
        alive.stop()
    figure("seconds from kill -9 of the engine until /ready is 503", until_503, 2.0)
    figure("seconds from kill -9 of the engine until a watcher sees NOT_SERVING", watch.seen[1][1] - killed, 2.0)
    figure("seconds from kill -9 of the engine until /ready is 200 again", until_200)
    assert [status for status, _ in watch.seen] == [SERVING, NOT_SERVING, SERVING]
    assert [status for status, _ in alive.seen] == [SERVING], "a restart of the pod would not help"


def test_after_kill_9_of_the_stub_the_server_is_not_alive(server, figure):
    os.kill(stub_of(server), signal.SIGKILL)
    with probing(server) as probes:
        figure("seconds from kill -9 of the stub until /live is 503", seconds_until(lambda: probes.get("/live") == 503))
        assert (probes.get("/ready"), probes.check("live"), probes.check("")) == (503, NOT_SERVING, NOT_SERVING)


def with_two_engines(folder: Path, model: str) -> list[Path]:
    """The Triton models of a served model with two engines on the CPU."""
    write_model(folder, ServedModel(model))
    config = folder / model / "config.pbtxt"
    one = "KIND_AUTO count: 1"
    assert one in config.read_text()
    config.write_text(config.read_text().replace(one, "KIND_CPU count: 2"))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def two_models(tmp_path_factory):
    """The model "captions" with one engine and "documents" with two, in a server whose gRPC health is off."""
    folder = tmp_path_factory.mktemp("two")
    folders = with_two_engines(folder / "models", "documents")
    environment = {"FLORENCE2_SLOTS": "2", "FLORENCE2_THREADS": "1"}
    with (
        (folder / "log.txt").open("wb") as log,
        TritonServer(
            ports=replace(Ports.free(), grpc_health=0),
            environment=environment,
            log=log,
            models=[ServedModel("captions")],
            folders=folders,
        ) as server,
    ):
        server.wait_until_ready(START_SECONDS)
        yield server
        server.process.kill()  # as above


def test_the_crash_of_one_model_leaves_the_other_ready(two_models):
    with probing(two_models) as probes:
        seconds_until(lambda: probes.get("/ready") == 200)
        for url in (two_models.grpc_url, two_models.http_url, probes.http_url):
            assert command(url, "--model", "documents", "--ready")[0] == 0
        os.kill(engines_of_model(two_models, "captions")[0], signal.SIGKILL)
        seconds_until(lambda: probes.get("/ready/captions") == 503)
        assert (probes.get("/ready/documents"), probes.get("/ready"), probes.get("/live")) == (200, 503, 200)
        assert command(probes.http_url, "--model", "documents", "--ready")[0] == 0
        assert command(probes.http_url, "--model", "captions", "--ready")[0] == 1
        seconds_until(lambda: probes.get("/ready") == 200)


def test_the_crash_of_one_of_two_engines_is_named_and_leaves_the_model_ready(two_models):
    with probing(two_models) as probes:
        os.kill(engines_of_model(two_models, "documents")[0], signal.SIGKILL)
        seconds_until(lambda: states(probes, "documents") == ["running", "starting"])
        assert (probes.get("/ready/documents"), probes.get("/ready")) == (200, 200)
        status, line, _ = command(two_models.grpc_url, "--model", "documents", "--ready")
        assert (status, line.split(";")[0]) == (0, "healthy: server live, model ready, engine running")
        assert re.search(r"in float32 with 2 engines of 2 slots \(engine [01] starting\)$", line)


def test_one_of_two_stubs_that_is_killed_makes_its_model_dead_and_leaves_the_other_ready(two_models):
    with probing(two_models) as probes:
        os.kill(psutil.Process(engines_of_model(two_models, "documents")[0]).ppid(), signal.SIGKILL)
        seconds_until(lambda: "unreachable" in states(probes, "documents"))
        assert [probes.get(f"/{kind}/documents") for kind in ("live", "ready")] == [503, 503]
        assert [probes.get(f"/{kind}/captions") for kind in ("live", "ready")] == [200, 200]
        assert probes.get("/live") == 503


def test_what_is_off_is_not_listened_on(two_models):
    processes = map(psutil.Process, [two_models.process_id, *children_of(two_models.process_id)])
    connections = [connection for process in processes for connection in process.net_connections("tcp")]
    listening = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    ports = two_models.ports
    assert listening == {ports.http, ports.grpc, ports.metrics, ports.health}
