"""How commands reach servers, and how they end if servers do not answer: with a server that a test controls."""

import signal
import time

import grpc
import pytest
from florence2 import Client
from florence2.cli.connecting import client_keywords
from florence2.cli.option_groups import ServerOptions
from florence2.options import EARLY_STOPPING
from tritonclient.grpc import service_pb2

from tests.cli.commands import SECONDS, run, running, shell
from tests.client.fake_server import FakeServer, serve
from tests.conftest import EXAMPLE_SCENE

pytest_plugins = ["tests.client.fake_server"]

SCENE = str(EXAMPLE_SCENE)


def test_headers_timeout_options_and_adapter_are_sent(florence2, server):
    server.answer("</s><s>A dog.</s>")
    line = ["--header=key=a=b", "--timeout=20", "--beams=2", "--early-stopping=true", "--adapter=pets"]
    done = florence2("caption", SCENE, f"--url={server.url}", *line)
    assert (done.status, done.out) == (0, "A dog.\n")
    assert server.last.metadata["key"] == "a=b"
    assert server.last.request.timeout_seconds == pytest.approx(20, abs=5)
    request = server.last.content
    assert (request.adapter, request.generation.num_beams, request.generation.early_stopping) == (
        "pets",
        2,
        EARLY_STOPPING[True],
    )


def test_the_variable_names_several_servers(florence2, server, monkeypatch):
    other = FakeServer()
    serving = serve(other)
    try:
        monkeypatch.setenv("FLORENCE2_URL", f"{server.url} {other.url}")
        assert florence2("caption", *[SCENE] * 8).status == 0
    finally:
        serving.stop(None)
    assert (len(server.received) + len(other.received), len(other.received) > 0) == (8, True)


def test_all_addresses_of_one_target_take_turns(server):
    other = FakeServer()
    serving = serve(other)
    keywords = client_keywords(ServerOptions(url=[f"ipv4:{server.url},{other.url}"]), None)
    deadline = time.monotonic() + SECONDS
    try:
        with Client(**keywords) as client:
            while not (server.received and other.received) and time.monotonic() < deadline:
                client.caption(EXAMPLE_SCENE)  # the second connection may take longer than the first answers
    finally:
        serving.stop(None)
    assert server.received
    assert other.received


def test_one_server_of_two_is_enough(florence2, server):
    assert florence2("caption", SCENE, "--url=127.0.0.1:1", f"--url={server.url}").status == 0


def test_a_name_does_not_add_lines_or_columns(florence2, server, tmp_path):
    server.answer("</s><s>A dog.</s>")
    name = tmp_path / "a\tb\nc.png"
    name.write_bytes(EXAMPLE_SCENE.read_bytes())
    assert florence2("caption", name, name, f"--url={server.url}").out == f"{tmp_path}/a\\x09b\\x0ac.png\tA dog.\n" * 2


def test_an_image_too_large_to_draw_is_one_line(florence2, server, tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    done = florence2("caption", SCENE, f"--url={server.url}", f"--draw={tmp_path}")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "decompression bomb" in done.err


def test_tls_is_used(florence2, certificate):
    key, chain = (file.read_bytes() for file in certificate)
    fake = FakeServer()
    serving = serve(fake, grpc.ssl_server_credentials([(key, chain)]))
    try:
        url = f"--url={fake.url}"
        trusted = ["--tls-root-certificates", certificate[1], "--tls-server-name=localhost"]
        assert florence2("caption", SCENE, url, *trusted).status == 0
        untrusted = florence2("caption", SCENE, url, "--tls")
        assert (untrusted.status, untrusted.err.count("\n")) == (3, 1)
    finally:
        serving.stop(None)


def test_a_server_that_refuses_until_the_timeout_is_unavailable(florence2, server):
    server.fail(grpc.StatusCode.UNAVAILABLE, "the queue is full")
    done = florence2("caption", SCENE, "--timeout=1", f"--url={server.url}")
    assert (done.status, done.out, done.err.count("\n")) == (3, "", 1)
    assert "the queue is full" in done.err


def test_a_server_that_denies_access_is_one_line(florence2, server):
    server.fail(grpc.StatusCode.PERMISSION_DENIED, "the key is wrong")
    done = florence2("caption", SCENE, f"--url={server.url}")
    assert (done.status, done.err) == (1, f"florence2: {SCENE}: the key is wrong\n")


def test_a_timeout_is_one_line(florence2, server):
    server.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "too late")
    done = florence2("caption", SCENE, "--timeout=1", f"--url={server.url}")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"florence2: {SCENE}: no answer within 1 s")


class ReadyServer(FakeServer):
    """Says that it is ready, whatever it does with requests."""

    def ModelReady(self, request, context):  # noqa: ARG002, N802  # gRPC's name
        return service_pb2.ModelReadyResponse(ready=True)


def test_ctrl_c_cancels_the_requests_and_ends_quietly():
    server = ReadyServer()
    serving = serve(server)
    server.hold()
    with running("caption", *[SCENE] * 3, f"--url={server.url}") as process:
        assert server.arrived.wait(SECONDS)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (130, b"", b"")
    assert server.cancelled.wait(SECONDS)
    serving.stop(None)


def test_a_reader_that_stops_early_ends_the_command_quietly(server):
    server.answer("</s><s>A dog.</s>")
    images = " ".join([SCENE] * 40)
    done = shell(f"florence2 caption {images} --url {server.url} | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.status in (0, 141)
    assert (done.out, done.err) == (f"{SCENE}\tA dog.\n", "")


def test_a_strange_answer_is_printed(server):
    """What a model may generate: letters outside the terminal's encoding, and a control character."""
    server.answer("</s><s>\u00e9\u4e2d\x1b[2J</s>")
    line = ["caption", SCENE, f"--url={server.url}"]
    assert run(*line, PYTHONIOENCODING="ascii").out == "\\xe9\\u4e2d[2J\n"
    assert "\\u001b" in run(*line, "--json").out
