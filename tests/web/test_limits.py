import asyncio
import gzip
import io
import struct
import time
import zlib

import PIL.Image
import pytest
from florence2.errors import InvalidArgumentError
from florence2.web.limits import read_image
from httpx2 import ASGITransport, AsyncClient, get
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response
from starlette.routing import Route

from tests.conftest import HEIC_FILES
from tests.web.conftest import picture

LIVE = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEADERS = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\n"


def response_on(connection) -> str:
    """The whole response; the server must close the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def send_forever(connection, chunk: bytes) -> None:
    """Send a chunk again and again, until the connection breaks."""
    while True:
        connection.sendall(chunk)


def png_header(width: int, height: int) -> bytes:
    """A PNG file that declares a size and has no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_a_body_larger_than_the_limit_is_refused_by_its_length(app_client):
    client = app_client(max_body_bytes=100)
    assert client.post("/v1/echo", content=b"x" * 100).json()["bytes"] == 100
    refused = client.post("/v1/echo", content=b"x" * 101)
    assert (refused.status_code, refused.headers["content-type"]) == (413, "application/problem+json")
    assert "at most 100 bytes" in refused.json()["detail"]


def test_an_endless_chunked_body_is_refused_and_the_connection_closed(app_socket):
    connection = app_socket(max_body_bytes=1_000_000)
    connection.sendall(HEADERS + b"Transfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(OSError, match=r"reset|pipe"):
        send_forever(connection, b"%x\r\n%s\r\n" % (100_000, b"x" * 100_000))


def test_a_client_that_sends_a_body_too_large_to_its_end_can_read_why_it_was_refused(app_socket):
    connection = app_socket(max_body_bytes=1000)
    connection.sendall(HEADERS + b"Connection: close\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000)
    assert response_on(connection).startswith("HTTP/1.1 413")


def test_a_client_that_waits_for_permission_is_refused_at_once(app_socket):
    connection = app_socket(max_body_bytes=1000)
    connection.sendall(HEADERS + b"Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n")
    assert response_on(connection).startswith("HTTP/1.1 413")


def test_a_body_that_arrives_too_slowly_is_refused(app_socket):
    connection = app_socket(body_timeout=0.05)
    connection.sendall(HEADERS + b"Content-Length: 10\r\n\r\nx")
    assert response_on(connection).startswith("HTTP/1.1 408")


def test_a_compressed_body_is_refused(app_client):
    refused = app_client().post("/v1/echo", content=gzip.compress(b"x"), headers={"Content-Encoding": "gzip"})
    assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "identity")


def test_requests_beyond_the_limit_of_concurrency_are_refused_and_the_slot_is_free_again(app_client):
    async def nested(request):
        transport = request.app.state.test_transport
        return Response(status_code=(await transport.post("http://localhost/v1/echo", content=b"x")).status_code)

    client = app_client(Route("/v1/nested", nested, methods=["POST"]), concurrency=1)
    client.app.state.test_transport = AsyncClient(transport=ASGITransport(client.app))
    assert client.post("/v1/nested").status_code == 503
    assert client.post("/v1/echo").status_code == 200
    assert client.get("/live").status_code == 200


def test_a_caller_who_leaves_cancels_the_request(app_socket):
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(request):
        await request.body()
        started.set()
        try:
            await asyncio.sleep(600)
        finally:
            cancelled.set()

    async def wait(request):
        await {"started": started, "cancelled": cancelled}[request.path_params["event"]].wait()
        return Response()

    connection = app_socket(Route("/v1/slow", slow, methods=["POST"]), Route("/{event}", wait))
    address = "http://{}:{}".format(*connection.getpeername())
    connection.sendall(b"POST /v1/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert get(f"{address}/started", timeout=60).status_code == 200
    connection.close()
    assert get(f"{address}/cancelled", timeout=60).status_code == 200


def test_a_caller_who_does_not_read_a_stream_is_left(app_socket, monkeypatch):
    monkeypatch.setattr("florence2.web.leaving.SEND_SECONDS", 0.05)
    ended = asyncio.Event()

    async def endless(request):
        await request.body()

        async def events():
            try:
                while True:
                    yield ServerSentEvent("x" * 100_000)
            finally:
                ended.set()

        return EventSourceResponse(events())

    async def wait(_):
        await ended.wait()
        return Response()

    connection = app_socket(Route("/v1/endless", endless, methods=["POST"]), Route("/ended", wait))
    connection.sendall(b"POST /v1/endless HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    assert get("http://{}:{}/ended".format(*connection.getpeername()), timeout=60).status_code == 200


@pytest.mark.parametrize("beginning", [b"", b"POST /v1/echo HTTP/1.1\r\nHost: loc", LIVE + b"GET"])
def test_a_connection_without_a_complete_head_is_closed(app_socket, monkeypatch, beginning):
    monkeypatch.setattr("florence2.web.connections.Connection.head_seconds", 0.5)
    connection = app_socket()
    connection.sendall(beginning)
    assert response_on(connection).count("200 OK") == beginning.count(LIVE)


def test_a_body_may_take_longer_than_a_head(app_socket, monkeypatch):
    monkeypatch.setattr("florence2.web.connections.Connection.head_seconds", 0.5)
    connection = app_socket()
    connection.sendall(HEADERS + b"Connection: close\r\nContent-Length: 2\r\n\r\nx")
    time.sleep(0.8)
    connection.sendall(b"x")
    assert '"bytes":2' in response_on(connection)


def test_after_a_request_with_two_lengths_the_connection_is_closed(app_socket):
    connection = app_socket()
    connection.sendall(HEADERS + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + LIVE)
    assert response_on(connection).count("HTTP/1.1") == 1


@pytest.mark.parametrize("url", ["http://example.com/a.jpg", " HTTPS://example.com", "file:///etc/passwd"])
def test_urls_are_not_fetched(url):
    with pytest.raises(InvalidArgumentError, match="URLs are not fetched") as error:
        read_image(url.encode(), 100)
    assert error.value.field == "image"


@pytest.mark.parametrize("data", [b"", b"hello", b"data:image/png;base64,!!", b"\x00" * 100, picture()[:20]])
def test_what_is_not_an_image_is_refused(data):
    with pytest.raises(InvalidArgumentError) as error:
        read_image(data, 100)
    assert error.value.field == "image"


def test_pixels_are_counted_before_any_is_decoded():
    assert read_image(picture(), 64 * 48) == picture()
    for data in (picture(), png_header(20_000, 20_000), png_header(2**31 - 1, 2**31 - 1)):
        with pytest.raises(InvalidArgumentError, match="pixels"):
            read_image(data, 64 * 48 - 1)


def test_an_image_in_a_format_that_the_server_does_not_read_is_refused():
    file = io.BytesIO()
    PIL.Image.new("RGB", (4, 4)).save(file, "EPS")
    with pytest.raises(InvalidArgumentError, match="JPEG, PNG"):
        read_image(file.getvalue(), 100)


def test_a_heic_image_is_left_to_the_server():
    file = (HEIC_FILES / "plain.heic").read_bytes()
    assert read_image(file, 1) == file
