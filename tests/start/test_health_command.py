"""The command `florence2-server health`, with ports for health that report what a test needs."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from florence2_server.__main__ import main
from florence2_server.addresses import Ports
from florence2_server.stub.health_http import HealthHttpServer

from tests.stub.health import HALF, READY, STARTING, report


@pytest.fixture
def health(monkeypatch, capsys):
    """`health(*arguments, **variables)`: the command's exit status and its line."""

    def health(*arguments: str, **variables: str) -> tuple[int, str]:
        for name, value in variables.items():
            monkeypatch.setenv(f"FLORENCE2_{name}", value)
        status = main(["health", *arguments])
        (line,) = capsys.readouterr().out.splitlines()
        return status, line

    return health


@pytest.mark.parametrize(
    ("shown", "arguments", "status", "line"),
    [
        (READY, [], 0, "healthy: captions running, documents running"),
        (READY, ["--ready"], 0, "healthy: captions running, documents running"),
        (STARTING, [], 0, "healthy: captions running, documents starting"),
        (STARTING, ["--ready"], 1, "unhealthy: captions running, documents starting"),
        (HALF, [], 1, "unhealthy: captions running, documents failed"),
        (report(), [], 0, "healthy: no served models"),
    ],
)
def test_all_models_are_in_the_line(health, shown, arguments, status, line):
    with closing(HealthHttpServer("127.0.0.1", 0, lambda: shown)) as server:
        assert health(*arguments, HEALTH_PORT=str(server.port)) == (status, line)


@pytest.mark.parametrize(
    ("listening", "address"),
    [("127.0.0.1", "0.0.0.0"), ("::", "::"), ("::1", "[::1]"), ("127.0.0.5", "127.0.0.5"), ("127.0.0.1", "localhost")],  # noqa: S104
)
@pytest.mark.parametrize("variable", ["ADDRESS", "HEALTH_ADDRESS"])
def test_the_address_is_the_servers_own(health, listening, address, variable):
    with closing(HealthHttpServer(listening, 0, lambda: READY)) as server:
        assert health(HEALTH_PORT=str(server.port), **{variable: address})[0] == 0


def test_no_proxy_is_used(health, monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with closing(HealthHttpServer("127.0.0.1", 0, lambda: READY)) as server:
        assert health(HEALTH_PORT=str(server.port))[0] == 0


def test_with_tls_for_grpc_triton_is_reached_by_http_on_the_loopback_interface(health):
    port = Ports.free().http
    status, line = health(
        HEALTH_PORT="0", HTTP_PORT=str(port), ADDRESS="127.0.0.5", GRPC_TLS_CERTIFICATE="/a", GRPC_TLS_KEY="/b"
    )
    assert (status, line.rpartition("; ")[2]) == (1, f"through http://127.0.0.1:{port}")


@pytest.mark.parametrize("variables", [{}, {"HEALTH_PORT": "0", "MODELS": "a=owner/a b=owner/b c=owner/c"}])
def test_a_server_that_does_not_respond_is_given_up_in_time(health, variables):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        started = time.monotonic()
        line = health("--timeout=0.3", **{"HTTP_PORT": port, "HEALTH_PORT": port, **variables})
        assert line == (1, "unhealthy: no response within 0.3 s")
        assert time.monotonic() - started < 5, "not three times a request's timeout"


class _Other(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/live" else 404)
        self.end_headers()
        self.wfile.write(b"[1]")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [([], "/live: not JSON of a port for health"), (["--ready"], "/ready: HTTP 404, expected a port for health")],
)
def test_another_server_on_the_port_is_not_healthy(health, arguments, reason):
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        port = server.server_port
        line = f"unhealthy: http://127.0.0.1:{port}{reason}"
        assert health(*arguments, HEALTH_PORT=str(port)) == (1, line)


def test_an_invalid_setting_is_named(health):
    assert health(HEALTH_PORT="many") == (
        1,
        "unhealthy: FLORENCE2_HEALTH_PORT: got 'many', expected a whole number from 0 to 65535",
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_an_invalid_timeout_has_exit_status_2(seconds, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["health", f"--timeout={seconds}"])
    assert ended.value.code == 2
    assert f"got '{seconds}', expected more than 0" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "1"])
def test_it_imports_neither_grpc_nor_torch(port):
    code = (
        "import sys; from florence2_server.__main__ import main; main(['health']); "
        "sys.exit(bool({'grpc', 'tenacity', 'torch', 'transformers', 'tritonclient'} & set(sys.modules)))"
    )
    environment = {"FLORENCE2_HEALTH_PORT": port, "FLORENCE2_HTTP_PORT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "unhealthy:"), done.stderr
