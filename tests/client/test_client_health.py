"""What a client and the command `florence2 health` say about a server."""

import asyncio

import grpc
import pytest
from florence2 import Health

from tests.client.fake_server import settled

pytest_plugins = ["tests.client.fake_server"]

NOBODY = "127.0.0.1:1"


@pytest.fixture
def health_of(client_type):
    def health_of(*urls):
        async def look():
            client = client_type(urls)
            try:
                return await settled(client.health())
            finally:
                await settled(client.close())

        return asyncio.run(look())

    return health_of


@pytest.mark.parametrize(
    ("state", "is_alive", "is_ready"),
    [("running", True, True), ("starting", True, False), ("failed", False, False), ("unreachable", False, False)],
)
def test_the_engine_decides(server, health_of, command, state, is_alive, is_ready):
    server.engine_state = state.encode()
    (health,) = health_of(server.url)
    assert health == Health(server.url, server_is_live=True, model_is_ready=True, engine=state)
    assert (health.is_alive, health.is_ready) == (is_alive, is_ready)
    status, line = command("--url", server.url)
    assert (status, line.split(":")[0]) == ((0, "healthy") if is_alive else (1, "unhealthy"))
    assert line.endswith(f"server live, model ready, engine {state}")
    assert command("--url", server.url, "--ready")[0] == (0 if is_ready else 1)


def test_a_word_that_this_client_does_not_know_is_no_health(server, health_of):
    server.engine_state = b"levitating"
    (health,) = health_of(server.url)
    assert health.engine == "unreachable"


def test_a_model_that_is_not_loaded_is_alive_and_not_ready(server, health_of):
    server.ready = False
    (health,) = health_of(server.url)
    assert health.is_alive
    assert not health.is_ready


def test_a_dead_stub_is_unreachable_and_the_reason_is_given(server, health_of, command):
    server.engine_state = None
    (health,) = health_of(server.url)
    assert (health.server_is_live, health.engine, health.is_alive) == (True, "unreachable", False)
    assert "not healthy" in health.reason
    assert command("--url", server.url) == (
        1,
        "unhealthy: server live, model ready, engine unreachable (the stub is not healthy)",
    )


def test_a_server_that_refuses_is_no_error_of_the_callers(server, health_of):
    server.fail(grpc.StatusCode.INTERNAL, "broken")
    (health,) = health_of(server.url)
    assert (health.server_is_live, health.model_is_ready, health.is_alive) == (True, False, False)


def test_each_server_is_looked_at(server, health_of):
    alive, gone = health_of(server.url, NOBODY)
    assert (alive.url, alive.is_ready) == (server.url, True)
    assert (gone.url, gone.server_is_live, gone.is_alive) == (NOBODY, False, False)
    assert gone.reason


def test_nobody_there_is_one_line_and_exit_status_1(command):
    status, line = command("--url", NOBODY)
    assert status == 1
    assert line.startswith("unhealthy: server down, model not ready, engine unreachable (")


def test_headers_go_with_the_question(server, command):
    assert command("--url", server.url, "--header", "triton-grpc-protocol-key=value")[0] == 0
    assert server.health_metadata["triton-grpc-protocol-key"] == "value"


def test_a_url_that_is_none_is_one_line_too(command):
    status, line = command("--url", "grpc://localhost:8001")
    assert status == 1
    assert "url: got" in line
