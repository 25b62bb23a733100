"""The connection: TLS, headers, sizes, readiness, lifetime."""

import asyncio
import subprocess
import sys
from concurrent import futures

import grpc
import pytest
from florence2 import v1
from florence2.cli import main
from florence2.client import TLS, AsyncClient, AsyncEventStream, Client, Keepalive, TextDelta
from florence2.errors import AccessDeniedError, InvalidArgumentError, MessageTooLargeError, UnavailableError
from florence2.results import Text

from tests.client.fake_server import WAIT_SECONDS, FakeServer, serve, settled

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"


def test_context_managers_close(server):
    server.answer("</s><s>A dog.</s>")
    with Client(server.url) as client:
        assert client.caption(IMAGE) == Text("A dog.")
    with pytest.raises(RuntimeError, match="closed"), client:
        pass


def test_async_context_managers_close(server):
    server.answer("</s><s>A dog.</s>")

    async def use() -> None:
        async with AsyncClient(server.url) as client:
            assert await client.caption(IMAGE) == Text("A dog.")
        with pytest.raises(RuntimeError, match="closed"):
            await client.caption(IMAGE)

    asyncio.run(use())


def test_an_async_client_can_be_made_before_its_event_loop_runs(server):
    client = AsyncClient(server.url)

    async def use() -> None:
        async with client:
            await client.caption(IMAGE)

    asyncio.run(use())
    assert server.received


def test_a_client_can_be_shared_by_threads(server):
    with Client(server.url) as client, futures.ThreadPoolExecutor(8) as pool:
        images = [bytes([number]) for number in range(32)]
        list(pool.map(client.caption, images))
    assert sorted(received.element("IMAGE") for received in server.received) == images


def test_concurrent_requests_of_an_async_client_share_its_connection(server):
    images = [bytes([number]) for number in range(32)]

    async def use() -> None:
        async with AsyncClient(server.url) as client:
            await asyncio.gather(*map(client.caption, images))

    asyncio.run(use())
    assert sorted(received.element("IMAGE") for received in server.received) == images


def test_headers_are_sent_with_every_request(server, use):
    use(lambda client: client.caption(IMAGE), headers={"Authorization": "Bearer secret"})
    assert server.last.metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize("headers", [{"key": "secret\n"}, {"a secret": "x"}, {"": "secret"}])
def test_a_header_that_http_does_not_take_is_found_at_once_and_not_shown(headers):
    with pytest.raises(InvalidArgumentError, match="headers") as raised:
        Client("localhost:1", headers=headers)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("access_token", ["secret", lambda: "secret"], ids=["a str", "a function"])
def test_an_access_token_is_sent_with_every_request(server, use, access_token):
    use(lambda client: client.caption(IMAGE), access_token=access_token)
    assert server.last.metadata["authorization"] == "Bearer secret"


def test_a_token_function_is_called_before_each_attempt(server, use):
    tokens = iter(["old", "new"])
    server.fail_first(1)
    use(lambda client: client.caption(IMAGE), access_token=lambda: next(tokens))
    assert [received.metadata["authorization"] for received in server.received] == ["Bearer old", "Bearer new"]


def test_the_models_name_and_version_are_sent_with_every_request(server, use):
    use(lambda client: client.caption(IMAGE), model="florence2", model_version="7")
    assert (server.last.message.model_name, server.last.message.model_version) == ("florence2", "7")


def test_responses_may_be_larger_than_grpc_allows_by_default(server, use):
    text = "word " * 1_000_000
    server.answer(text)
    assert use(lambda client: client.caption(IMAGE)) == Text(text.strip())


def test_channel_arguments_override_the_clients_own(server, use):
    server.answer("word " * 1000)
    with pytest.raises(MessageTooLargeError, match="larger than max"):
        use(lambda client: client.caption(IMAGE), channel_args=[("grpc.max_receive_message_length", 1000)])


def test_a_client_is_ready_if_the_model_is(server, use):
    assert use(lambda client: client.is_ready()) is True
    server.ready = False
    assert use(lambda client: client.is_ready()) is False


def test_a_server_that_is_unavailable_or_silent_is_not_ready(server, use):
    server.fail(grpc.StatusCode.UNAVAILABLE, "starting")
    assert use(lambda client: client.is_ready()) is False
    server.hold()
    assert use(lambda client: client.is_ready(timeout=0.2)) is False


def test_is_ready_raises_all_other_errors(server, use):
    server.fail(grpc.StatusCode.PERMISSION_DENIED, "who are you?")
    with pytest.raises(AccessDeniedError, match="who are you"):
        use(lambda client: client.is_ready())


@pytest.mark.parametrize("url", ["http://localhost:8001", "grpc://localhost:8001"])
def test_a_url_with_a_scheme_unknown_to_grpc_is_rejected(client_type, url):
    with pytest.raises(InvalidArgumentError, match=r'url: got .*, expected "host:port"'):
        client_type(url)


@pytest.mark.parametrize("settings", [{"interval": 0}, {"timeout": -1}, {"interval": float("nan")}])
def test_keepalive_rejects_invalid_durations(settings):
    with pytest.raises(InvalidArgumentError, match=f"keepalive.{next(iter(settings))}: got "):
        Keepalive(**settings)


@pytest.fixture
def tls_server(certificate):
    """The fake server, with TLS and required client certificates."""
    key, chain = (path.read_bytes() for path in certificate)
    fake = FakeServer()
    running = serve(fake, grpc.ssl_server_credentials([(key, chain)], chain, require_client_auth=True))
    fake.url = fake.url.replace("127.0.0.1", "localhost")
    yield fake
    running.stop(grace=None).wait(WAIT_SECONDS)


async def first_event(client: Client | AsyncClient) -> TextDelta:
    stream = client.stream(IMAGE, v1.TaskRequest(caption={}))
    return await anext(stream) if isinstance(stream, AsyncEventStream) else next(stream)


@pytest.fixture(params=["unary", "stream"])
def text_over(request, client_type):
    """`text_over(url, tls)`: a text from the server, by a unary request or by a stream."""

    async def text(url: str, tls: TLS | None) -> str:
        client = client_type(url, tls=tls, timeout=WAIT_SECONDS)
        try:
            return (await (settled(client.caption(IMAGE)) if request.param == "unary" else first_event(client))).text
        finally:
            await settled(client.close())

    return lambda url, tls: asyncio.run(text(url, tls))


def test_a_client_connects_with_mutual_tls(tls_server, certificate, text_over):
    key, chain = certificate
    tls_server.answer("</s><s>A dog.</s>")
    tls_server.stream(v1.StreamEvent(text_delta="A dog."))
    tls = TLS(root_certificates=chain, private_key=key, certificate_chain=str(chain))
    assert text_over(tls_server.url, tls) == "A dog."


def test_the_health_command_connects_with_mutual_tls(tls_server, certificate, capsys):
    key, chain = certificate
    tls = [f"--tls-root-certificates={chain}", f"--tls-private-key={key}", f"--tls-certificate-chain={chain}"]
    url = tls_server.url.replace("localhost", "127.0.0.1")  # not in the certificate, like the address that a probe uses
    for name, status in (("localhost", 0), ("elsewhere", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["health", f"--url={url}", *tls, f"--tls-server-name={name}"])
        assert ended.value.code == status, capsys.readouterr().out


def test_nothing_is_sent_to_a_server_with_an_untrusted_certificate(tls_server, text_over):
    with pytest.raises(UnavailableError):
        text_over(tls_server.url, TLS())
    assert not tls_server.received


def test_tls_needs_key_and_certificate_together(certificate):
    with pytest.raises(InvalidArgumentError, match="one of private_key and certificate_chain"):
        TLS(private_key=certificate[0])


def test_a_missing_certificate_is_an_error_when_the_client_is_made(client_type, tmp_path):
    with pytest.raises(FileNotFoundError):
        client_type("localhost:1", tls=TLS(root_certificates=tmp_path / "none.pem"))


def test_the_codec_needs_no_grpc():
    code = "import sys, florence2; sys.exit(any(name in sys.modules for name in ('grpc', 'tritonclient')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
