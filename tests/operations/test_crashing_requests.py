"""The three kinds of request that end tritonserver 2.51, and what shields it from them (SECURITY.md)."""

import http.client
import time

import numpy as np
import pytest
import tritonclient.grpc as triton
from florence2 import Client
from florence2_server.flags import flags
from florence2_server.server_settings import ServerSettings
from tritonclient.utils import InferenceServerException

from tests.conftest import EXAMPLE_SCENE
from tests.server.observation import WAIT_SECONDS

KEY = "open sesame"
GRPC_KEY = {"triton-grpc-protocol-inference-key": KEY}
HTTP_KEY = {"inference-key": KEY}
# The flags of SECURITY.md.
SHIELD = (
    f"--grpc-restricted-protocol=inference:inference-key={KEY}",
    f"--http-restricted-api=inference:inference-key={KEY}",
)
DEPTH = 50_000
FORM_BYTES = 5_000_000  # 4.4 MB suffice
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HEALTH = "florence2_health"


def request_a_classification(server, headers: dict[str, str]) -> str:
    """Request an output as a classification, which divides by zero. Returns the error."""
    about = triton.InferInput("ABOUT", [1], "BYTES")
    about.set_data_from_numpy(np.array([b"engine"], dtype=np.object_))
    outputs = [triton.InferRequestedOutput("STATE", class_count=1)]
    with triton.InferenceServerClient(server.grpc_url) as client, pytest.raises(InferenceServerException) as caught:
        client.infer(HEALTH, [about], outputs=outputs, headers=headers, client_timeout=WAIT_SECONDS)
    return str(caught.value)


def send_nested_json(server, headers: dict[str, str], path: str = f"models/{HEALTH}/generate") -> str:
    """Send deeply nested JSON, which overflows the stack. Returns the answer, or the error."""
    body = b'{"ABOUT":' + b"[" * DEPTH + b'"x"' + b"]" * DEPTH + b"}"
    return post(server, server.ports.http, f"/v2/{path}", body, headers)


def send_large_form(server, headers: dict[str, str]) -> str:
    """Send a large body with the type that curl declares by default. Returns the answer, or the error.

    The HTTP server copies a form to its stack, which overflows, before it looks at the path or the key.
    """
    return post(server, server.ports.http, "/v2/health/live", bytes(FORM_BYTES), FORM | headers)


def send_large_form_to_metrics(server, headers: dict[str, str]) -> str:
    """Send the same form to the port for metrics. Returns the answer, or the error."""
    return post(server, server.ports.metrics, "/metrics", bytes(FORM_BYTES), FORM | headers)


def post(server, port: int, path: str, body: bytes, headers: dict[str, str]) -> str:
    """Send a body over HTTP. Returns the answer, or the error."""
    connection = http.client.HTTPConnection(server.host, port, timeout=WAIT_SECONDS)
    try:
        connection.request("POST", path, body, headers)
        return connection.getresponse().read().decode()
    except (http.client.HTTPException, ConnectionError) as error:
        return repr(error)
    finally:
        connection.close()


@pytest.mark.parametrize(
    "send", [request_a_classification, send_nested_json, send_large_form, send_large_form_to_metrics]
)
def test_the_request_ends_an_unshielded_tritonserver_2_51(start_server, send):
    """If this fails, Triton withstands the request: correct SECURITY.md and docker/README.md.

    A model without an engine suffices, because the request ends tritonserver itself.
    """
    server = start_server("--model-control-mode=explicit", f"--load-model={HEALTH}")
    send(server, {})
    assert server.wait() < 0, "ended by a signal"


@pytest.fixture(scope="module")
def shielded(start_server):
    """A server with the flags of the images and those that restrict inference."""
    return start_server(*flags(ServerSettings({}), is_closed=True), *SHIELD)


@pytest.mark.parametrize("send", [request_a_classification, send_nested_json])
def test_a_key_for_inference_shields_the_server_from_callers_who_lack_it(shielded, send, figure):
    begin = time.monotonic()
    assert "restricted" in send(shielded, {})
    figure(f"{send.__name__}, without the key: milliseconds to the refusal", (time.monotonic() - begin) * 1000)
    assert_still_serves(shielded)


def test_a_key_does_not_shield_the_server_from_a_large_form(start_server):
    server = start_server("--model-control-mode=explicit", f"--load-model={HEALTH}", *SHIELD)
    send_large_form(server, {})
    assert server.wait() < 0, "ended by a signal"


def test_the_same_body_declared_as_json_is_read(shielded):
    send_large_form(shielded, {"Content-Type": "application/json"})
    assert_still_serves(shielded)


@pytest.mark.parametrize("path", ["trace/setting", "logging", "repository/index", "repository/models/a/load"])
def test_no_other_api_of_the_images_reads_json_from_strangers(shielded, path):
    assert "restricted" in send_nested_json(shielded, {}, path)
    assert_still_serves(shielded)


def assert_still_serves(server) -> None:
    with Client(server.grpc_url, headers=GRPC_KEY) as client:
        assert client.caption(EXAMPLE_SCENE).text
        assert client.is_ready()
