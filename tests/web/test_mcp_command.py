"""The command `florence2 mcp`, and its app over HTTP, without a server."""

import sys

import florence2 as florence2_package
import pytest
from florence2 import AsyncClient
from florence2.mcp.http import http_app
from florence2.mcp.server import make_server
from florence2.testing import MockTransport
from florence2.web.config import WebConfig
from starlette.testclient import TestClient

from tests.cli.commands import florence2
from tests.web.conftest import respond

__all__ = ["florence2"]

ANN, BOB = "a" * 16, "b" * 16
HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port=9000"], "--port: only with --http"),
        (["--api-keys=keys"], "--api-keys: only with --http"),
        (["--root=missing"], "missing', expected an existing folder"),
        (["--device=cpu"], "--device: only with --checkpoint"),
        (
            ["--http", "--host=0.0.0.0"],
            "--host: got '0.0.0.0', expected a loopback address, unless --api-keys is given",
        ),
        (["--http", "--api-keys=missing"], "missing: No such file or directory"),
    ],
)
def test_wrong_options_end_the_command_with_one_line(florence2, options, message):
    ended = florence2("mcp", *options)
    assert ended.status == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_without_the_extra_the_command_names_it(florence2, monkeypatch):
    monkeypatch.setattr(florence2_package, "mcp", florence2_package.mcp)  # importing it again replaces it
    for name in [name for name in sys.modules if name.split(".")[:2] == ["florence2", "mcp"]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    ended = florence2("mcp")
    assert ended.status == 2
    assert 'pip install "florence2-triton[mcp]"' in ended.err


@pytest.fixture
def app(tmp_path):
    """`app(**settings)`: a client of the app over HTTP, with two keys."""
    keys = tmp_path / "keys"
    keys.write_text(f"ann:{ANN}\nbob:{BOB}\n")

    def make(**settings) -> TestClient:
        server = make_server(lambda: AsyncClient(transport=MockTransport(respond)))
        config = WebConfig(**{"api_keys": keys, **settings})
        return TestClient(http_app(server, config), base_url="http://localhost", headers=HEADERS)

    return make


def key(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def test_a_request_without_a_known_key_is_refused_before_it_is_read(app):
    with app() as client:
        for headers in ({}, key("c" * 16), {"X-API-Key": "ann"}):
            refused = client.post("/mcp", content=b"not json", headers=headers)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert client.post("/mcp", json=INITIALIZE, headers=key(ANN)).status_code == 200


def test_a_session_serves_only_the_key_that_opened_it(app):
    with app() as client:
        session = client.post("/mcp", json=INITIALIZE, headers=key(ANN)).headers["Mcp-Session-Id"]
        statuses = [
            client.post("/mcp", json=LIST, headers={**key(value), "Mcp-Session-Id": session}).status_code
            for value in (ANN, BOB)
        ]
    assert statuses == [200, 404]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 200), ({"Origin": "https://example.com"}, 403), ({"Host": "example.com"}, 421)],
)
def test_a_website_can_neither_use_its_own_name_nor_its_origin(app, headers, status):
    with app(api_keys=None) as client:
        assert client.post("/mcp", json=INITIALIZE, headers=headers).status_code == status


def test_a_large_message_is_refused(app):
    with app(max_body_bytes=1000) as client:
        assert client.post("/mcp", content=b"[" * 1001, headers=key(ANN)).status_code == 413
