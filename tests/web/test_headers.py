import json
import logging

import pytest
from florence2.testing import MockTransport
from florence2.transports.tracing import current_trace_context
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.web.conftest import picture, respond

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("path", ["/live", "/v1/echo", "/v1/nothing"])
def test_every_response_has_the_security_headers(app_client, path):
    headers = app_client().post(path).headers
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:9", "[::1]:80", "LOCALHOST"])
def test_a_server_of_this_machine_accepts_this_machines_names(app_client, host):
    assert app_client().get("/v1/nothing", headers={"Host": host}).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", ""])
def test_a_name_that_resolves_to_this_machine_is_refused(app_client, host):
    client = app_client()
    assert client.get("/v1/nothing", headers={"Host": host}).status_code == 421
    assert client.get("/ready", headers={"Host": host}).status_code == 200, "probes use addresses"


def test_a_public_server_accepts_any_host_unless_some_are_chosen(app_client):
    other, public = {"Host": "f.example"}, "0.0.0.0"  # noqa: S104
    assert app_client(host=public).get("/x", headers=other).status_code == 404
    assert app_client(host=public, allowed_hosts=("f.example",)).get("/x", headers=other).status_code == 404
    assert app_client(host=public, allowed_hosts=("g.example",)).get("/x", headers=other).status_code == 421


def test_the_form_of_another_website_is_refused_unless_its_origin_is_allowed(app_client):
    origin = {"Origin": "https://evil.example"}
    assert app_client().post("/v1/echo", headers=origin).status_code == 403
    assert app_client().post("/v1/echo", headers={"Origin": "http://localhost"}).status_code == 200
    for origin_of_none in ("null", "http://[::1", "chrome-extension://localhost"):
        assert app_client().post("/v1/echo", headers={"Origin": origin_of_none}).status_code == 403
    allowed = app_client(allowed_origins=("https://evil.example",)).post("/v1/echo", headers=origin)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://evil.example")


def test_errors_reach_the_scripts_of_allowed_origins_too(app_client):
    client = app_client(allowed_origins=("https://a.example",), max_body_bytes=1)
    refused = client.post("/v1/echo", content=b"xx", headers={"Origin": "https://a.example"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (413, "https://a.example")


def test_a_callers_request_id_is_taken_over_if_it_is_valid(app_client):
    client = app_client()
    answer = client.post("/v1/echo", headers={"X-Request-ID": "order-7"})
    assert (answer.json()["id"], answer.headers["x-request-id"]) == ("order-7", "order-7")
    for invalid in ("with space", "x" * 129, "\u00e9".encode("latin-1")):
        assert len(client.post("/v1/echo", headers={"X-Request-ID": invalid}).json()["id"]) == 32


def test_the_access_log_has_the_id_and_the_name_of_the_key_but_neither_key_nor_query(app_client, tmp_path, caplog):
    (tmp_path / "keys").write_text("ann:" + "k" * 16)
    client = app_client(api_keys=tmp_path / "keys")
    with caplog.at_level(logging.INFO, "florence2.web.access"):
        client.post("/v1/echo?secret=1", headers={"X-API-Key": "k" * 16, "X-Request-ID": "7"})
        client.get("/ready")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "florence2.web.access"]
    logged = json.loads(line)
    wanted = {"request_id": "7", "key": "ann", "method": "POST", "path": "/v1/echo", "status": 200}
    assert logged.items() >= wanted.items()
    assert "k" * 16 not in line
    assert "secret" not in line


def test_the_trace_of_a_caller_is_continued(app_client):
    async def traced(request):  # noqa: ARG001
        return JSONResponse(current_trace_context())

    client = app_client(Route("/v1/traced", traced))
    assert client.get("/v1/traced", headers={"traceparent": TRACE}).json()["traceparent"] == TRACE
    assert client.get("/v1/traced").json() == {}


class RecordingTransport(MockTransport):
    """A mock that keeps what it was told about each request."""

    def __init__(self):
        super().__init__(respond)
        self.contexts = []

    async def infer_async(self, image, request, context):
        self.contexts.append(context)
        return await super().infer_async(image, request, context)


def test_the_triton_server_learns_the_request_id_and_the_trace(app_client):
    transport = RecordingTransport()
    headers = {"X-Request-ID": "order-7", "traceparent": TRACE}
    answer = app_client(transport=transport).post("/v1/caption", files={"image": picture()}, headers=headers)
    assert answer.status_code == 200
    (context,) = transport.contexts
    assert (context.request_id, context.traceparent) == ("order-7", TRACE)
