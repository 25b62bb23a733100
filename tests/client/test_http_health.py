"""What `florence2 health --url http://...` says about a server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest_plugins = ["tests.client.fake_server"]

QUESTION = {"inputs": [{"name": "ABOUT", "shape": [1], "datatype": "BYTES", "data": ["engine"]}]}


class FakeTriton(ThreadingHTTPServer):
    """Triton's HTTP as far as health looks at it: paths to status and body."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = {"/v2/health/live": (200, b""), "/v2/models/florence2/ready": (200, b"")}
        self.say("running")

    def say(self, state):
        output = {"name": "STATE", "datatype": "BYTES", "shape": [1], "data": [state]}
        body = json.dumps({"model_name": "florence2_health", "outputs": [output]}).encode()
        self.answers["/v2/models/florence2_health/infer"] = (200, body)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = self.server.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        assert json.loads(self.rfile.read(int(self.headers["Content-Length"]))) == QUESTION
        self.do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def triton():
    with FakeTriton() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("state", "alive", "ready"),
    [("running", 0, 0), ("starting", 0, 1), ("failed", 1, 1), ("unreachable", 1, 1), ("levitating", 1, 1)],
)
def test_the_engine_decides(triton, command, state, alive, ready):
    triton.say(state)
    assert command("--url", triton.url)[0] == alive
    assert command("--url", triton.url + "/", "--ready")[0] == ready


def test_a_model_that_is_not_loaded_is_alive_and_not_ready(triton, command):
    triton.answers["/v2/models/florence2/ready"] = (400, b"")
    assert command("--url", triton.url) == (0, "healthy: server live, model not ready, engine running")
    assert command("--url", triton.url, "--ready")[0] == 1


def test_a_dead_stub_is_unhealthy_and_the_reason_is_given(triton, command):
    triton.answers["/v2/models/florence2_health/infer"] = (500, b'{"error":"the stub is not healthy"}')
    status, line = command("--url", triton.url)
    assert status == 1
    assert line.endswith('engine unreachable (HTTP 500: {"error":"the stub is not healthy"})')


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}", b'{"outputs": [{"name": "STATE", "data": []}]}'])
def test_an_answer_that_is_none_is_unhealthy(triton, command, body):
    triton.answers["/v2/models/florence2_health/infer"] = (200, body)
    status, line = command("--url", triton.url)
    assert status == 1
    assert "engine unreachable" in line


def test_nobody_there_is_one_line_and_exit_status_1(command):
    status, line = command("--url", "http://127.0.0.1:1")
    assert status == 1
    assert line.startswith("unhealthy: server down, model not ready, engine unreachable (")


def test_another_protocol_is_one_line_and_exit_status_1(server, command):
    assert command("--url", f"http://{server.url}")[0] == 1
