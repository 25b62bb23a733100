"""Health over HTTP, also with clients that mean no good."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from florence2_server.stub.health_http import HealthHttpServer

from tests.stub.health import HALF, READY, STARTING, WAIT_SECONDS, fetch


@pytest.fixture
def closing_later():
    with ExitStack() as stack:
        yield lambda service: stack.enter_context(closing(service))


@pytest.fixture
def over_http(closing_later):
    """`over_http(report)`: a server of a report."""
    return lambda shown, address="127.0.0.1": closing_later(HealthHttpServer(address, 0, lambda: shown))


@pytest.mark.parametrize(
    ("shown", "path", "status"),
    [
        *((READY, path, 200) for path in ("/", "/live", "/ready", "/live/captions", "/ready/documents")),
        *((HALF, path, 200) for path in ("/", "/live/captions", "/ready/captions")),
        *((HALF, path, 503) for path in ("/live", "/ready", "/live/documents", "/ready/documents")),
        *((STARTING, path, 200) for path in ("/", "/live", "/live/documents", "/ready/captions")),
        *((STARTING, path, 503) for path in ("/ready", "/ready/documents")),
        *((READY, path, 404) for path in ("/live/", "/live/nobody", "/metrics", "/captions", "/live/captions/0")),
        (READY, "/ready?verbose=1", 200),
    ],
)
def test_the_status_over_http(over_http, shown, path, status):
    assert fetch(over_http(shown).port, path)[0] == status


def test_the_body_has_the_models_that_the_path_is_about(over_http):
    port = over_http(HALF).port
    models = {path: json.loads(fetch(port, path)[1])["models"] for path in ("/", "/ready", "/live/documents")}
    assert {path: sorted(shown) for path, shown in models.items()} == {
        "/": ["captions", "documents"],
        "/ready": ["captions", "documents"],
        "/live/documents": ["documents"],
    }
    assert models["/"]["documents"]["state"] == "failed"


def test_head_has_no_body_and_other_methods_are_refused(over_http):
    port = over_http(HALF).port
    assert fetch(port, "/ready", method="HEAD") == (503, b"")
    assert fetch(port, "/ready", method="POST")[0] == 501


@pytest.mark.parametrize(("address", "hosts"), [("::1", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"])])
def test_ipv6_over_http(over_http, address, hosts):
    port = over_http(READY, address).port
    assert [fetch(port, "/ready", host)[0] for host in hosts] == [200] * len(hosts)


@pytest.mark.parametrize("line", [b"GET * HTTP/1.1", b"GET ready", b"\x16\x03\x01", b"GET http://host/ready HTTP/1.1"])
def test_requests_of_another_kind_are_refused(over_http, line, capfd):
    with socket.create_connection(("127.0.0.1", over_http(READY).port), timeout=WAIT_SECONDS) as client:
        client.sendall(line + b"\r\n\r\n")
        assert b"200" not in client.recv(1000)
    assert capfd.readouterr().err == "", "nothing in the log"


def is_open(client: socket.socket) -> bool:
    """Whether the server has neither closed nor reset a connection, on which it sends nothing."""
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


def test_a_request_that_never_ends_is_cut_off(over_http):
    with socket.create_connection(("127.0.0.1", over_http(READY).port), timeout=WAIT_SECONDS) as slow:
        begin = time.monotonic()
        slow.setblocking(False)
        while is_open(slow):
            slow.send(b"x")  # in time for a limit of each piece, not for one of the whole
            time.sleep(0.2)
        assert time.monotonic() - begin < WAIT_SECONDS


def test_a_head_that_is_too_long_is_cut_off(over_http):
    with socket.create_connection(("127.0.0.1", over_http(READY).port), timeout=WAIT_SECONDS) as client:
        client.sendall(b"GET /ready HTTP/1.1\r\nX: " + b"x" * 10_000)
        begin = time.monotonic()
        client.setblocking(False)
        while is_open(client):
            time.sleep(0.01)
        assert time.monotonic() - begin < 1


def test_idle_connections_never_keep_a_probe_out(over_http):
    port = over_http(READY).port
    threads = threading.active_count()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS))
        begin = time.monotonic()
        assert fetch(port, "/ready")[0] == 200
        assert time.monotonic() - begin < 1
        assert threading.active_count() - threads < 50


def test_a_probe_that_is_being_answered_is_not_ended_by_idle_connections(closing_later):
    asked, may_answer = threading.Semaphore(0), threading.Event()

    def slow_report():
        asked.release()
        assert may_answer.wait(WAIT_SECONDS)
        return READY

    port = closing_later(HealthHttpServer("127.0.0.1", 0, slow_report)).port
    with ExitStack() as stack, ThreadPoolExecutor() as probes:
        answers = [probes.submit(fetch, port, "/ready") for _ in range(4)]
        for _ in answers:
            assert asked.acquire(timeout=WAIT_SECONDS)
        for _ in range(64):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS))
        may_answer.set()
        assert [answer.result()[0] for answer in answers] == [200] * 4


def test_no_probe_fails_beside_idle_connections(over_http):
    port = over_http(READY).port
    with ExitStack() as stack, ThreadPoolExecutor(4) as probes:
        for _ in range(64):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS))
        answers = [probes.submit(fetch, port, "/ready") for _ in range(100)]
        assert {answer.result()[0] for answer in answers} == {200}
