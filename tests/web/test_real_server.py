"""`florence2 web` in front of a real server: what only the two together show."""

import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.bulk.kills import Server
from tests.server.observation import metric_sum, seconds_until
from tests.web.conftest import STOP_SECONDS, web_process

# Long enough that no machine finishes it before the caller leaves and the server has noticed.
LONG = {"min_new_tokens": "900", "max_new_tokens": "900"}
BOUNDARY = "leaving"


def cancelled(server, task: str) -> float:
    return metric_sum(server, "florence2_requests_total", outcome="cancelled", task=task)


def running(server) -> float:
    return metric_sum(server, "florence2_engine_running_requests")


def test_a_caller_who_leaves_a_stream_cancels_the_request_on_the_server(door_url, server, scene):
    before = cancelled(server, "ocr")
    fields, files = {**LONG, "stream": "true"}, {"image": scene}
    with httpx2.stream("POST", f"{door_url}/v1/read-text", data=fields, files=files, timeout=STOP_SECONDS) as response:
        next(response.iter_lines())
    seconds_until(lambda: cancelled(server, "ocr") == before + 1)


def test_a_caller_who_leaves_before_the_answer_cancels_the_request_on_the_server(door_url, server, scene):
    seconds_until(lambda: running(server) == 0)  # a request of another test may just have been cancelled
    before = cancelled(server, "caption")
    request = httpx2.Request("POST", f"{door_url}/v1/caption", data=LONG, files={"image": scene})
    address = urlsplit(door_url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        connection.sendall(f"POST /v1/caption HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        seconds_until(lambda: running(server) > 0)
    seconds_until(lambda: cancelled(server, "caption") == before + 1)


@pytest.mark.web
def test_a_server_that_goes_away_and_comes_back_is_ready_again_without_a_restart(tmp_path, scene):
    server = Server(tmp_path / "log.txt")
    try:
        with web_process("--url", server.url, "--timeout", 5) as (url, process):

            def statuses() -> tuple[int, int]:
                """Of readiness and of a request."""
                answer = httpx2.post(f"{url}/v1/detect", files={"image": scene}, timeout=STOP_SECONDS)
                return httpx2.get(f"{url}/ready", timeout=STOP_SECONDS).status_code, answer.status_code

            assert statuses() == (200, 200)
            server.running.stop()
            ready, answered = statuses()
            assert ready == 503
            assert answered in (503, 504)
            server.restart()
            seconds_until(lambda: statuses() == (200, 200))
        log = "".join(process.seen)
        assert log.count("model florence2 is not ready") == 1
        assert "model florence2 is ready" in log
    finally:
        server.close()
