"""`florence2 web` as a process."""

import signal
import socket
import threading

import httpx2
import pytest

from tests.cli.commands import florence2
from tests.web.conftest import STOP_SECONDS, picture, web_process

__all__ = ["florence2"]

NO_SERVER = "127.0.0.1:1"
EVERYWHERE = "0.0.0.0"  # noqa: S104


def post(url: str, fields: dict | None = None, **options) -> httpx2.Response:
    files = {"image": ("a.png", picture(), "image/png")}
    return httpx2.post(f"{url}/v1/caption", data=fields, files=files, timeout=STOP_SECONDS, **options)


def test_without_a_server_it_starts_and_says_why_it_is_not_ready():
    with web_process("--url", NO_SERVER, "--host", EVERYWHERE) as (url, process):
        assert [line for line in process.seen if "--api-keys" in line], "a warning: anyone may use it"
        assert httpx2.get(f"{url}/live", timeout=STOP_SECONDS).status_code == 200
        answer = httpx2.get(f"{url}/ready", timeout=STOP_SECONDS)
        assert answer.status_code == 503
        (model,) = answer.json()["models"]
        assert model["servers"] == [{"ready": False, "engine": "unreachable", "reason": "the server does not respond"}]
        refused = post(url, {"timeout": "0.5"})
        assert refused.status_code in (503, 504)
        assert NO_SERVER not in refused.text


def test_a_request_in_flight_is_answered_after_sigterm(server):
    with web_process("--url", server.grpc_url) as (url, process):
        images = {"image": ("a.png", picture(), "image/png")}
        fields = {"min_new_tokens": "150", "max_new_tokens": "200"}
        with httpx2.stream(
            "POST",
            f"{url}/v1/caption",
            data={**fields, "stream": "true"},
            files=images,
            headers={"Accept": "text/event-stream"},
            timeout=STOP_SECONDS,
        ) as response:
            lines = response.iter_lines()
            next(line for line in lines if line.startswith("event: text_delta"))
            process.send_signal(signal.SIGTERM)
            assert "event: finished" in list(lines)
        assert process.wait(STOP_SECONDS) == 0


def test_a_request_that_outlives_the_time_for_stopping_is_refused():
    answers: list[httpx2.Response] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as silent_server,
        web_process("--url", f"127.0.0.1:{silent_server.getsockname()[1]}", "--drain", 1) as (url, process),
    ):
        caller = threading.Thread(target=lambda: answers.append(post(url)))
        caller.start()
        silent_server.settimeout(STOP_SECONDS)
        with silent_server.accept()[0]:
            process.send_signal(signal.SIGTERM)
            caller.join(STOP_SECONDS)
            assert process.wait(STOP_SECONDS) == 0
    assert [answer.status_code for answer in answers] == [503]
    assert "stopping" in answers[0].json()["detail"]


def test_an_address_in_use_is_one_line_and_status_2(florence2):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = florence2("web", "--port", listener.getsockname()[1])
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "in use" in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--api-keys", "/nonexistent"], "/nonexistent: No such file"),
        (["--timeout", "0"], "--timeout: got 0"),
        (["--host", "not.an.address.invalid"], "not.an.address.invalid"),
        (["--adapter", "tags=folder"], "--adapter: only with --checkpoint"),
        (["--checkpoint", "x", "--model", "a", "--model", "b"], "--model: only once"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(florence2, arguments, words):
    ended = florence2("web", "--port", "0", *arguments)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert words in ended.err


def test_without_its_extra_the_command_names_it(florence2, monkeypatch):
    monkeypatch.setattr("florence2.cli.web_command._PACKAGES", ("not_installed",))
    ended = florence2("web", "--port", "0")
    assert ended.status == 2
    assert 'pip install "florence2-triton[web]"' in ended.err
    assert "Traceback" not in ended.err
