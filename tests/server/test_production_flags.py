"""The client and a tritonserver with production flags: mutual TLS, restricted protocols, traces to a collector."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
import tritonclient.grpc as triton
from florence2 import TLS, Client
from florence2.cli import main
from florence2.errors import AccessDeniedError, UnavailableError
from tritonclient.utils import InferenceServerException

from tests.reference import png
from tests.server.observation import seconds_until
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

KEY = {"triton-grpc-protocol-inference-key": "open sesame"}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = {"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"}


class Collector(ThreadingHTTPServer):
    """Receives from Triton's OpenTelemetry exporter."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Receive)
        self.bodies: list[bytes] = []

    def has_trace(self, trace_id: str) -> bool:
        """Whether a span of a trace was received, in protobuf or JSON."""
        raw = bytes.fromhex(trace_id)
        forms = (raw, trace_id.encode(), trace_id.upper().encode(), base64.b64encode(raw))
        return any(form in body for form in forms for body in self.bodies)


class _Receive(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def collector():
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def strict(start_server, certificate, collector):
    """A server that requires certificates, and a key for inference; everything but health is restricted."""
    key, chain = certificate
    return start_server(
        "--grpc-use-ssl=1",
        "--grpc-use-ssl-mutual=1",
        f"--grpc-server-key={key}",
        f"--grpc-server-cert={chain}",
        f"--grpc-root-cert={chain}",
        "--grpc-restricted-protocol=inference:inference-key=open sesame",
        "--grpc-restricted-protocol=shared-memory,model-config,model-repository,statistics,trace,logging:admin-key=admin",
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        "--trace-config=rate=1",
        f"--trace-config=opentelemetry,url=http://127.0.0.1:{collector.server_port}/v1/traces",
    )


@pytest.fixture(scope="module")
def scene():
    return png(draw(sample_scene(51)))


@pytest.fixture(scope="module")
def connect(strict, certificate):
    """`connect(**arguments)`: a client of the strict server."""
    key, chain = certificate

    def connect(**arguments) -> Client:
        url = f"localhost:{strict.ports.grpc}"  # as the certificate names it
        return Client(url, **{"tls": TLS(chain, key, chain), "headers": KEY, "timeout": 60, **arguments})

    return connect


def test_with_certificate_and_key_everything_works(connect, scene):
    with connect() as client:
        assert client.is_ready()
        assert client.caption(scene).text
        (health,) = client.health()
        assert (health.is_ready, health.reason) == (True, "")


def test_without_the_key_access_is_denied_without_a_retry(connect, scene):
    with connect(headers={}) as client, pytest.raises(AccessDeniedError, match=r"restricted.*inference-key"):
        client.caption(scene)


def test_without_a_certificate_there_is_no_connection(connect, certificate, scene):
    with connect(tls=TLS(certificate[1]), timeout=3) as client, pytest.raises(UnavailableError):
        client.caption(scene)


def test_restricted_protocols_are_closed_to_callers(strict, certificate):
    key, chain = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_channel_credentials(chain, key, chain)
    with (
        triton.InferenceServerClient(f"localhost:{strict.ports.grpc}", creds=credentials) as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        client.get_model_config("florence2")


def test_the_health_command_takes_key_and_certificates(strict, certificate, capsys):
    key, chain = certificate
    (header,) = (f"--header={name}={value}" for name, value in KEY.items())
    tls = [f"--tls-root-certificates={chain}", f"--tls-private-key={key}", f"--tls-certificate-chain={chain}"]
    with pytest.raises(SystemExit) as ended:
        main(["health", f"--url={strict.grpc_url}", "--tls-server-name=localhost", header, *tls, "--timeout=5"])
    assert ended.value.code == 0, capsys.readouterr().out
    assert "engine running" in capsys.readouterr().out


def test_tritons_trace_continues_the_callers(connect, collector, scene):
    with connect(headers={**KEY, **TRACEPARENT}) as client:
        client.caption(scene)
    seconds_until(lambda: collector.has_trace(TRACE_ID))
