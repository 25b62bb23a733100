"""Starting and stopping a server: errors in one line, signals to any of its processes, addresses, the log."""

import os
import re
import shutil
import signal
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from florence2 import Client
from florence2_server.addresses import Hosts
from florence2_server.repository import REPOSITORY
from florence2_server.tritonserver import TritonServer, has_gpu

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.operations.foreground import STOP_SECONDS, Foreground, foreground
from tests.operations.test_health import command

LONG = {"min_new_tokens": 300}
CALLERS = 4
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [IWE] \d+ [\w.]+(:\d+)?\] .+")
# Triton 2.51 logs this on every machine without a GPU.
MEANINGLESS = "CudaDriverHelper has not been initialized."
HEALTHY = "healthy: server live, model ready, engine running; "
SERVICES = ("grpc", "http", "metrics", "health", "grpc_health")


def signaled(server: Foreground, target: str, number: signal.Signals) -> None:
    """Send a signal as different managers of processes do."""
    if target == "command":
        server.process.send_signal(number)
    elif target == "tritonserver":
        server.tritonserver().send_signal(number)
    elif target == "group":
        os.killpg(server.process.pid, number)
    else:
        for process in reversed(server.processes()):
            process.send_signal(number)


def is_reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def engines_until_the_end(server: Foreground) -> set[int]:
    """The process ids of all engines that are seen before the server has ended."""
    seen, begin = set(), time.monotonic()
    while server.process.poll() is None:
        assert time.monotonic() - begin < STOP_SECONDS, "\n".join(server.log)
        try:
            seen |= {engine.pid for engine in server.engines()}
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    return seen


@pytest.mark.parametrize(
    ("target", "number"),
    [
        ("command", signal.SIGTERM),
        ("tritonserver", signal.SIGTERM),
        ("group", signal.SIGTERM),
        ("each process", signal.SIGTERM),
        ("group", signal.SIGINT),
        ("command", signal.SIGHUP),
    ],
)
def test_answers_under_way_complete_and_no_engine_is_started_anew(tmp_path, figure, target, number):
    with (
        foreground(tmp_path) as server,
        Client(server.url, retry=None) as client,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        server.wait_until_ready()
        before = server.processes()
        engines = {engine.pid for engine in server.engines()}
        calls = [callers.submit(client.read_text, EXAMPLE_SCENE, **LONG) for _ in range(CALLERS)]
        time.sleep(0.5)
        assert not any(call.done() for call in calls), "the requests must be in flight when the signal arrives"
        begin = time.monotonic()
        signaled(server, target, number)
        assert engines_until_the_end(server) <= engines
        assert server.wait() == 0
        name = f"O8: {number.name} to {target}"
        figure(f"{name}: seconds until the server has ended", time.monotonic() - begin)
        answered = sum(bool(call.result().text) for call in calls)
        figure(f"{name}: answers completed of {CALLERS} under way", answered)
        assert answered == CALLERS
    _, left = psutil.wait_procs(before, timeout=5)
    assert left == []
    assert [line for line in server.log if "restarting" in line or "is gone" in line] == []


def test_a_command_that_is_killed_takes_its_server_along(tmp_path, figure):
    with foreground(tmp_path) as server:
        server.wait_until_ready()
        others = server.processes()[1:]
        begin = time.monotonic()
        server.process.kill()
        _, left = psutil.wait_procs(others, timeout=30)
        assert left == []
        figure("O8: kill -9 of the command: seconds until all processes have ended", time.monotonic() - begin)


def test_a_server_that_is_stopped_while_it_loads_ends_with_status_0(tmp_path, figure):
    with foreground(tmp_path) as server:
        server.wait_until(server.engines)
        before = server.processes()
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        # An engine that is importing torch notices only then that its parent has ended.
        _, left = psutil.wait_procs(before, timeout=30)
        assert left == []
        seconds = time.monotonic() - begin
        figure("O8: SIGTERM while the checkpoint loads: seconds until all processes have ended", seconds)


def test_the_command_repeats_as_its_last_line_why_the_checkpoint_cannot_be_loaded(tmp_path, figure):
    folder = tmp_path / "cut"
    shutil.copytree(DEMO_CHECKPOINT, folder)
    (folder / "model.safetensors").write_bytes((DEMO_CHECKPOINT / "model.safetensors").read_bytes()[:5000])
    with foreground(tmp_path, f"--model=cut={folder}") as server:
        assert server.wait() == 1
    assert f"] checkpoint '{folder}' cannot be loaded: " in server.log[-1]
    figure("O7: a checkpoint that cannot be loaded: lines of log", len(server.log))


def test_a_mistake_in_the_settings_is_the_only_line(tmp_path, figure):
    begin = time.monotonic()
    with foreground(tmp_path, FLORENCE2_SLOT="4") as server:
        assert server.wait() == 1
    figure("O7: a misspelled variable: lines of log", len(server.log))
    assert server.log == ["FLORENCE2_SLOT: no such variable, did you mean FLORENCE2_SLOTS?"]
    figure("O7: a misspelled variable: seconds until the command has ended", time.monotonic() - begin)


def test_all_services_listen_on_all_addresses_and_every_line_of_the_log_has_its_time(tmp_path, figure):
    # A proxy that does not exist, and what Kubernetes defines for a Service called florence2-http.
    environment = {"http_proxy": "http://127.0.0.1:9", "FLORENCE2_HTTP_PORT_80_TCP": "tcp://10.0.0.1:80"}
    with foreground(tmp_path, "--host=::", **environment) as server:
        figure("seconds from the command to ready", server.wait_until_ready())
        reached = [service for service in SERVICES if is_reached("::1", getattr(server.ports, service))]
        figure(f"O6: at [::], services that accept connections to ::1, of {len(SERVICES)}", len(reached))
        assert reached == list(SERVICES)
        # Triton's HTTP server then accepts IPv6 alone, and so does its metrics page.
        socket.create_connection(("127.0.0.1", server.ports.grpc), timeout=5).close()
        os.killpg(server.process.pid, signal.SIGTERM)
        assert server.wait() == 0
    assert [line for line in server.log if not LINE.fullmatch(line)] == []
    warnings = [line for line in server.log if not re.match(r"\S+ I ", line)]
    assert [line for line in warnings if MEANINGLESS not in line] == []
    assert len(warnings) == (0 if has_gpu() else 1)
    figure("lines of log from a healthy start to its end", len(server.log))


@pytest.mark.parametrize("host", ["[::1]", "::1", "127.0.0.1", "localhost"])
def test_an_address_has_one_spelling_for_all_services(host, tmp_path, figure):
    health = [REPOSITORY / "florence2_health"]
    with (tmp_path / "log").open("wb") as log:
        server = TritonServer(log=log, hosts=Hosts.all_at(host), models=(), folders=health)
        with server:
            server.wait_until_ready(30)
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            metrics = f"http://{server.host}:{server.ports.metrics}/metrics"
            urls = (f"{server.http_url}/v2/health/live", metrics)
            statuses = [direct.open(url, timeout=5).status for url in urls]
            with Client(server.grpc_url, model="florence2") as client:
                (found,) = client.health(timeout=10)
    responding = [statuses[0] == 200, statuses[1] == 200, found.server_is_live]
    figure(f"O6: at {host}, services of 3 that respond: HTTP, metrics, gRPC", sum(responding))
    assert all(responding)


def test_ports_for_health_that_are_turned_off_are_not_listened_on_and_health_is_reported(tmp_path, figure):
    with foreground(tmp_path, FLORENCE2_HEALTH_PORT="0", FLORENCE2_GRPC_HEALTH_PORT="0") as server:
        server.wait_until_ready()
        ports = server.ports
        assert server.listening() == {ports.http, ports.grpc, ports.metrics}
        urls = (server.url, f"http://127.0.0.1:{ports.http}")
        said = [command(url, "--ready") for url in urls]
    healthy = [line for status, line, _ in said if status == 0 and line.startswith(HEALTHY)]
    name = "O5: without ports for health, and behind a proxy that is not there, `florence2 health` is right, times of"
    figure(f"{name} {len(urls)}", len(healthy))
    assert len(healthy) == len(urls), said


def test_two_signals_are_as_good_as_one(tmp_path, figure):
    with foreground(tmp_path) as server:
        server.wait_until_ready()
        for _ in range(3):
            os.killpg(server.process.pid, signal.SIGTERM)
            threading.Event().wait(0.2)
        assert server.wait() == 0
    figure("O8: three SIGTERMs to the group: exit status", server.process.returncode)
