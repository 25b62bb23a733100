"""The output of `florence2 health --url http://...`."""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest_plugins = ["tests.client.fake_server"]

REQUEST = {"inputs": [{"name": "ABOUT", "shape": [1], "datatype": "BYTES", "data": ["engine"]}]}


class FakeService(ThreadingHTTPServer):
    """An HTTP service: a status and a body for each path that it has."""

    def __init__(self, address="127.0.0.1"):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), _Handler)
        self.answers = {}

    @property
    def url(self):
        host, port, *_ = self.server_address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class FakeTriton(FakeService):
    """The part of Triton's HTTP service that health checks use."""

    def __init__(self, address="127.0.0.1"):
        super().__init__(address)
        self.answers |= {"/v2/health/live": (200, b""), "/v2/models/florence2/ready": (200, b"")}
        self.say("running")

    def say(self, state, info=None):
        outputs = {"STATE": state} if info is None else {"STATE": state, "INFO": info}
        tensors = [{"name": name, "datatype": "BYTES", "shape": [1], "data": [outputs[name]]} for name in outputs]
        body = json.dumps({"model_name": "florence2_health", "outputs": tensors}).encode()
        self.answers["/v2/models/florence2_health/infer"] = (200, body)


class FakeHealthPort(FakeService):
    """The server's own port for health."""

    def say(self, **models):
        self.answers["/"] = (200, json.dumps({"models": models}).encode())


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.server.answers.get(self.path, (400, b""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        assert json.loads(self.rfile.read(int(self.headers["Content-Length"]))) == REQUEST
        self.do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def served(service):
    with service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield service
        service.shutdown()
        thread.join()


@pytest.fixture
def triton():
    with served(FakeTriton()) as service:
        yield service


@pytest.fixture
def health_port():
    with served(FakeHealthPort("127.0.0.1")) as service:
        yield service


@pytest.mark.parametrize(
    ("state", "alive", "ready"),
    [("running", 0, 0), ("starting", 0, 1), ("failed", 1, 1), ("unreachable", 1, 1), ("levitating", 1, 1)],
)
def test_health_depends_on_the_state_of_the_engine(triton, command, state, alive, ready):
    triton.say(state)
    assert command("--url", triton.url)[0] == alive
    assert command("--url", triton.url + "/", "--ready")[0] == ready


def test_a_model_that_is_not_loaded_is_alive_and_not_ready(triton, command):
    triton.answers["/v2/models/florence2/ready"] = (400, b"")
    assert command("--url", triton.url) == (0, "healthy: server live, model not ready, engine running")
    assert command("--url", triton.url, "--ready")[0] == 1


def test_a_crashed_stub_is_unhealthy_and_the_reason_is_reported(triton, command):
    triton.answers["/v2/models/florence2_health/infer"] = (500, b'{"error":"the stub is not healthy"}')
    status, line = command("--url", triton.url)
    assert status == 1
    assert line.endswith('engine unreachable (HTTP 500: {"error":"the stub is not healthy"})')


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}", b'{"outputs": [{"name": "STATE", "data": []}]}'])
def test_a_malformed_response_is_unhealthy(triton, command, body):
    triton.answers["/v2/models/florence2_health/infer"] = (200, body)
    status, line = command("--url", triton.url)
    assert status == 1
    assert "engine unreachable" in line


def test_an_unreachable_server_is_one_line_and_exit_status_1(command):
    status, line = command("--url", "http://127.0.0.1:1")
    assert status == 1
    assert line.startswith("unhealthy: server down, model not ready, engine unreachable (")


def test_a_server_of_another_protocol_is_one_line_and_exit_status_1(server, command):
    assert command("--url", f"http://{server.url}")[0] == 1


ENGINE = {"name": "0", "state": "running", "checkpoint": "owner/name", "revision": "1a2b3c", "layout": "native"}
ENGINE |= {"device": "cuda:0", "dtype": "bfloat16", "slots": 16}
LOADING = {"name": "0", "state": "starting", "slots": 0}


def report(state, *engines):
    return {"state": state, "version": "0.1.0", "engines": list(engines)}


def test_what_triton_serves_is_printed(triton, command):
    triton.say("running", json.dumps({"version": "0.1.0", "model": "florence2", "engines": [ENGINE]}))
    _, line = command("--url", triton.url)
    assert line == (
        "healthy: server live, model ready, engine running; "
        "florence2-triton 0.1.0 serves owner/name@1a2b3c (native layout) on cuda:0 in bfloat16 with 16 slots"
    )


def test_the_port_for_health_is_recognized(health_port, command):
    health_port.say(florence2=report("running", ENGINE))
    status, line = command("--url", health_port.url, "--ready")
    assert status == 0
    assert line == (
        "healthy: server live, model ready, engine running; "
        "florence2-triton 0.1.0 serves owner/name@1a2b3c (native layout) on cuda:0 in bfloat16 with 16 slots"
    )


def test_at_the_port_for_health_a_model_that_loads_is_alive_and_not_ready(health_port, command):
    health_port.say(florence2=report("starting", LOADING))
    expected = "server live, model not ready, engine starting; florence2-triton 0.1.0 serves nothing yet"
    assert command("--url", health_port.url) == (0, f"healthy: {expected}")
    assert command("--url", health_port.url, "--ready") == (1, f"unhealthy: {expected}")


def test_at_the_port_for_health_a_model_whose_engine_is_restarted_is_loaded(health_port, command):
    health_port.say(florence2=report("starting", {**ENGINE, "state": "starting"}))
    status, line = command("--url", health_port.url, "--ready")
    assert status == 1
    assert "model ready, engine starting" in line


def test_at_the_port_for_health_each_model_has_its_own_health(health_port, command):
    health_port.say(captions=report("running", ENGINE), documents=report("failed", {**ENGINE, "state": "failed"}))
    assert command("--url", health_port.url, "--model", "captions")[0] == 0
    assert command("--url", health_port.url, "--model", "documents")[0] == 1
    status, line = command("--url", health_port.url)
    assert status == 1
    assert line.endswith("engine unreachable (the server has no model 'florence2', only 'captions', 'documents')")


def test_an_engine_that_failed_among_several_is_named(health_port, command):
    engines = [ENGINE, {**ENGINE, "name": "1", "device": "cuda:1", "state": "failed"}]
    health_port.say(florence2=report("failed", *engines))
    status, line = command("--url", health_port.url)
    assert status == 1
    assert line.endswith(
        "serves owner/name@1a2b3c (native layout) on cuda:0 and cuda:1 in bfloat16 with 2 engines of 16 slots "
        "(engine 1 failed)"
    )


@pytest.mark.parametrize(
    ("adapters", "shown"),
    [
        ([], ""),
        (["tags"], " and 1 adapter (tags)"),
        (["a", "b", "c"], " and 3 adapters (a, b, c)"),
        (["a", "b", "c", "d"], " and 4 adapters"),
    ],
)
def test_the_adapters_of_an_engine_are_named_or_counted(health_port, command, adapters, shown):
    health_port.say(florence2=report("running", {**ENGINE, "adapters": adapters}))
    assert command("--url", health_port.url)[1].endswith(f" in bfloat16 with 16 slots{shown}")


def test_engines_with_different_adapters_are_described_apart(health_port, command):
    second = {**ENGINE, "name": "1", "device": "cuda:1"}
    adapted = {"adapters": ["tags"]}
    health_port.say(florence2=report("running", ENGINE | adapted, second | adapted))
    assert command("--url", health_port.url)[1].endswith(" with 2 engines of 16 slots and 1 adapter (tags)")
    health_port.say(florence2=report("running", ENGINE | adapted, second))
    assert (
        "on cuda:0 in bfloat16 with 16 slots and 1 adapter (tags), owner/name" in command("--url", health_port.url)[1]
    )


def test_a_report_of_another_shape_is_one_line_and_exit_status_1(health_port, command):
    for body in (b'{"models": 3}', b"[]", b'{"models": {"florence2": {"state": "running", "version": 3}}}'):
        health_port.answers["/"] = (200, body)
        assert command("--url", health_port.url)[0] == 1


def test_proxies_are_not_used(triton):
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy"), "http://127.0.0.1:1")
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    probe = [sys.executable, "-c", "from florence2.cli import main; main()", "health", "--url", triton.url]
    assert subprocess.run(probe, env=kept | proxies, timeout=30, check=False).returncode == 0


def test_an_ipv6_address_is_written_in_brackets(command):
    with served(FakeTriton("::1")) as triton:
        assert triton.url.startswith("http://[::1]:")
        assert command("--url", triton.url)[0] == 0
