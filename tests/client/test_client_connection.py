"""The connection: TLS, headers, sizes, readiness, lifetime."""

import asyncio
import subprocess
import sys
from concurrent import futures

import grpc
import pytest
from florence2._cli import main
from florence2.client import TLS, AsyncClient, Client, Keepalive
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


def test_many_calls_of_one_async_client_share_its_connection(server):
    images = [bytes([number]) for number in range(32)]

    async def use() -> None:
        async with AsyncClient(server.url) as client:
            await asyncio.gather(*map(client.caption, images))

    asyncio.run(use())
    assert sorted(received.element("IMAGE") for received in server.received) == images


def test_headers_go_with_every_call(server, ask):
    ask(lambda client: client.caption(IMAGE), headers={"Authorization": "Bearer secret"})
    assert server.last.metadata["authorization"] == "Bearer secret"


@pytest.mark.parametrize("access_token", ["secret", lambda: "secret"], ids=["a word", "a function"])
def test_an_access_token_goes_with_every_call(server, ask, access_token):
    ask(lambda client: client.caption(IMAGE), access_token=access_token)
    assert server.last.metadata["authorization"] == "Bearer secret"


def test_a_function_is_asked_for_the_token_before_each_attempt(server, ask):
    tokens = iter(["old", "new"])
    server.fail_first(1)
    ask(lambda client: client.caption(IMAGE), access_token=lambda: next(tokens))
    assert [received.metadata["authorization"] for received in server.received] == ["Bearer old", "Bearer new"]


def test_the_models_name_and_version_go_with_every_call(server, ask):
    ask(lambda client: client.caption(IMAGE), model="florence2", model_version="7")
    assert (server.last.message.model_name, server.last.message.model_version) == ("florence2", "7")


def test_answers_may_be_larger_than_grpc_allows_by_default(server, ask):
    text = "word " * 1_000_000
    server.answer(text)
    assert ask(lambda client: client.caption(IMAGE)) == Text(text.strip())


def test_channel_arguments_win_over_the_clients_own(server, ask):
    server.answer("word " * 1000)
    with pytest.raises(MessageTooLargeError, match="larger than max"):
        ask(lambda client: client.caption(IMAGE), channel_args=[("grpc.max_receive_message_length", 1000)])


def test_a_ready_model_is_ready(server, ask):
    assert ask(lambda client: client.is_ready()) is True
    server.ready = False
    assert ask(lambda client: client.is_ready()) is False


def test_a_server_that_cannot_answer_is_not_ready(server, ask):
    server.fail(grpc.StatusCode.UNAVAILABLE, "starting")
    assert ask(lambda client: client.is_ready()) is False
    server.hold()
    assert ask(lambda client: client.is_ready(timeout=0.2)) is False


def test_readiness_hides_no_other_error(server, ask):
    server.fail(grpc.StatusCode.PERMISSION_DENIED, "who are you?")
    with pytest.raises(AccessDeniedError, match="who are you"):
        ask(lambda client: client.is_ready())


@pytest.mark.parametrize("url", ["http://localhost:8001", "grpc://localhost:8001"])
def test_a_url_with_a_scheme_that_grpc_has_not_is_refused(client_type, url):
    with pytest.raises(InvalidArgumentError, match=r'url: got .*, expected "host:port"'):
        client_type(url)


@pytest.mark.parametrize("settings", [{"interval": 0}, {"timeout": -1}, {"interval": float("nan")}])
def test_keepalive_needs_times(settings):
    with pytest.raises(InvalidArgumentError, match=f"keepalive.{next(iter(settings))}: got "):
        Keepalive(**settings)


@pytest.fixture
def tls_server(certificate):
    """The fake behind TLS that asks clients for a certificate."""
    key, chain = (path.read_bytes() for path in certificate)
    fake = FakeServer()
    running = serve(fake, grpc.ssl_server_credentials([(key, chain)], chain, require_client_auth=True))
    fake.url = fake.url.replace("127.0.0.1", "localhost")
    yield fake
    running.stop(grace=None).wait(WAIT_SECONDS)


def caption_over(client_type, url: str, tls: TLS | None) -> Text:
    async def caption() -> Text:
        client = client_type(url, tls=tls, timeout=WAIT_SECONDS)
        try:
            return await settled(client.caption(IMAGE))
        finally:
            await settled(client.close())

    return asyncio.run(caption())


def test_mutual_tls(tls_server, certificate, client_type):
    key, chain = certificate
    tls_server.answer("</s><s>A dog.</s>")
    tls = TLS(root_certificates=chain, private_key=key, certificate_chain=str(chain))
    assert caption_over(client_type, tls_server.url, tls) == Text("A dog.")


def test_the_health_command_speaks_mutual_tls(tls_server, certificate, capsys):
    key, chain = certificate
    tls = [f"--tls-root-certificates={chain}", f"--tls-private-key={key}", f"--tls-certificate-chain={chain}"]
    url = tls_server.url.replace("localhost", "127.0.0.1")  # as a probe has it, whom the certificate does not name
    for name, status in (("localhost", 0), ("elsewhere", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["health", f"--url={url}", *tls, f"--tls-server-name={name}"])
        assert ended.value.code == status, capsys.readouterr().out


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(tls_server, client_type):
    with pytest.raises(UnavailableError):
        caption_over(client_type, tls_server.url, TLS())
    assert not tls_server.received


def test_tls_needs_key_and_certificate_together(certificate):
    with pytest.raises(InvalidArgumentError, match="one of private_key and certificate_chain"):
        TLS(private_key=certificate[0])


def test_a_missing_certificate_is_found_when_the_client_is_made(client_type, tmp_path):
    with pytest.raises(FileNotFoundError):
        client_type("localhost:1", tls=TLS(root_certificates=tmp_path / "none.pem"))


def test_the_codec_needs_no_grpc():
    code = "import sys, florence2; sys.exit(any(name in sys.modules for name in ('grpc', 'tritonclient')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
