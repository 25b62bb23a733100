"""The health of a server, as clients and the command `florence2 health` report it."""

import asyncio

import grpc
import pytest
from florence2 import EngineInfo, Health, ServerInfo, v1
from florence2.errors import DeadlineExceededError, ServerError, UnavailableError
from florence2.testing import MockTransport, task_response
from google.protobuf.json_format import MessageToJson

from tests.client.fake_server import settled

pytest_plugins = ["tests.client.fake_server"]

NOBODY = "127.0.0.1:1"
FIRST = {"name": "0", "state": "running", "checkpoint": "owner/name", "revision": "1a2b3c", "layout": "native"}
FIRST |= {"device": "cuda:0", "dtype": "bfloat16", "slots": 16}
SECOND = {"name": "1", "state": "starting"}


def info_of(*engines):
    message = v1.ServerInfo(version="0.1.0", model="florence2", engines=engines)
    return MessageToJson(message, always_print_fields_with_no_presence=True, indent=None).encode()


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
def test_health_depends_on_the_state_of_the_engine(server, health_of, command, state, is_alive, is_ready):
    server.engine_state = state.encode()
    (health,) = health_of(server.url)
    assert health == Health(server.url, server_is_live=True, model_is_ready=True, engine=state)
    assert (health.is_alive, health.is_ready) == (is_alive, is_ready)
    status, line = command("--url", server.url)
    assert (status, line.split(":")[0]) == ((0, "healthy") if is_alive else (1, "unhealthy"))
    assert line.endswith(f"server live, model ready, engine {state}")
    assert command("--url", server.url, "--ready")[0] == (0 if is_ready else 1)


def test_an_unknown_engine_state_counts_as_unreachable(server, health_of):
    server.engine_state = b"levitating"
    (health,) = health_of(server.url)
    assert health.engine == "unreachable"


def test_a_model_that_is_not_loaded_is_alive_and_not_ready(server, health_of):
    server.ready = False
    (health,) = health_of(server.url)
    assert health.is_alive
    assert not health.is_ready


def test_a_crashed_stub_is_unreachable_and_the_reason_is_reported(server, health_of, command):
    server.engine_state = None
    (health,) = health_of(server.url)
    assert (health.server_is_live, health.engine, health.is_alive) == (True, "unreachable", False)
    assert "not healthy" in health.reason
    assert command("--url", server.url) == (
        1,
        "unhealthy: server live, model ready, engine unreachable (the stub is not healthy)",
    )


def test_health_raises_no_error_if_the_server_rejects_the_readiness_check(server, health_of):
    server.fail(grpc.StatusCode.INTERNAL, "broken")
    (health,) = health_of(server.url)
    assert (health.server_is_live, health.model_is_ready, health.is_alive) == (True, False, False)


def test_health_reports_each_server(server, health_of):
    alive, gone = health_of(server.url, NOBODY)
    assert (alive.url, alive.is_ready) == (server.url, True)
    assert (gone.url, gone.server_is_live, gone.is_alive) == (NOBODY, False, False)
    assert gone.reason


def test_an_unreachable_server_is_one_line_and_exit_status_1(command):
    status, line = command("--url", NOBODY)
    assert status == 1
    assert line.startswith("unhealthy: server down, model not ready, engine unreachable (")


def test_headers_are_sent_with_the_health_check(server, command):
    assert command("--url", server.url, "--header", "triton-grpc-protocol-key=value")[0] == 0
    assert server.health_metadata["triton-grpc-protocol-key"] == "value"


def test_an_invalid_url_is_one_line_too(command):
    status, line = command("--url", "grpc://localhost:8001")
    assert status == 1
    assert "url: got" in line


def test_a_client_reports_what_each_server_serves(server, use):
    server.info = info_of(FIRST, SECOND)
    expected = ServerInfo(server.url, "0.1.0", "florence2", (EngineInfo(**FIRST), EngineInfo(**SECOND)))
    assert use(lambda client: client.server_info()) == [expected]
    (health,) = use(lambda client: client.health())
    assert health.info == expected


def test_the_adapters_of_an_engine_are_reported(server, use, command):
    server.info = info_of(FIRST | {"adapters": ["invoices", "tags"]}, SECOND)
    (info,) = use(lambda client: client.server_info())
    assert [engine.adapters for engine in info.engines] == [("invoices", "tags"), ()]
    _, line = command("--url", server.url)
    assert line.endswith("on cuda:0 in bfloat16 with 16 slots and 2 adapters (invoices, tags) (engine 1 starting)")


def test_fields_of_newer_servers_are_ignored(server, use):
    server.info = b'{"version": "9.0.0", "engines": [{"name": "0", "state": "levitating", "mood": "good"}], "color": 3}'
    (info,) = use(lambda client: client.server_info())
    assert info == ServerInfo(server.url, "9.0.0", "", (EngineInfo("0", "unreachable"),))


@pytest.mark.parametrize("text", [b"", b"no JSON", b"[3]", b'{"engines": 3}'])
def test_malformed_information_is_a_fault_of_the_server(server, use, text):
    server.info = text
    with pytest.raises(ServerError, match="INFO cannot be read"):
        use(lambda client: client.server_info())


def test_an_older_server_does_not_report_what_it_serves(server, use):
    with pytest.raises(ServerError, match="older than this client") as raised:
        use(lambda client: client.server_info())
    assert raised.value.url == server.url
    (health,) = use(lambda client: client.health())
    assert (health.is_ready, health.info) == (True, None)


def test_what_an_unreachable_server_serves_is_an_error(client_type):
    async def look():
        client = client_type(NOBODY)
        try:
            await settled(client.server_info())
        finally:
            await settled(client.close())

    with pytest.raises(UnavailableError) as raised:
        asyncio.run(look())
    assert raised.value.url == NOBODY


def test_a_server_that_does_not_respond_in_time_is_an_error(server, use):
    server.hold_health()
    with pytest.raises(DeadlineExceededError, match=r"no answer within 0\.2 s"):
        use(lambda client: client.server_info(timeout=0.2))


def test_a_closed_client_does_not_look(server, client_type):
    async def look():
        client = client_type(server.url)
        await settled(client.close())
        await settled(client.server_info())

    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(look())


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_the_timeout_is_checked(use, timeout):
    with pytest.raises(ValueError, match="timeout"):
        use(lambda client: client.server_info(timeout=timeout))


class Silent(MockTransport):
    """A transport that does not know what is served."""

    server_info = server_info_async = None


@pytest.mark.parametrize(("transport_type", "knows"), [(MockTransport, True), (Silent, False)])
def test_a_transport_need_not_know_what_is_served(client_type, transport_type, knows):
    async def look():
        return await settled(client_type(transport=transport_type(lambda *_: task_response("A dog."))).server_info())

    if knows:
        (info,) = asyncio.run(look())
        assert info.engines[0].state == "running"
    else:
        with pytest.raises(TypeError, match="server_info"):
            asyncio.run(look())


def test_the_command_prints_what_is_served(server, command):
    server.info = info_of(FIRST)
    status, line = command("--url", server.url)
    assert status == 0
    assert line.endswith("serves owner/name@1a2b3c (native layout) on cuda:0 in bfloat16 with 16 slots")


@pytest.mark.parametrize("name", ["http_proxy", "grpc_proxy", "https_proxy"])
def test_the_command_uses_no_proxy(server, command, monkeypatch, name):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert command("--url", server.url)[0] == 0
