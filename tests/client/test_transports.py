"""Clients over any transport, the transports to Triton by themselves, and transports of other packages."""

import asyncio
import textwrap
import time
from importlib.metadata import EntryPoints

import grpc
import pytest
from florence2 import v1
from florence2.client import AsyncClient, AsyncEventStream, Client, Health, Retry
from florence2.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from florence2.results import Text
from florence2.testing import task_response
from florence2.transports import (
    AsyncStreamingTransport,
    AsyncTransport,
    Reply,
    RequestContext,
    StreamingTransport,
    StreamReply,
    Transport,
    TransportNotFoundError,
    load_transport,
)
from florence2.transports.destination import TLS, Destination, Keepalive
from florence2.transports.triton import AsyncTritonTransport, TritonTransport

from tests.client.fake_server import settled

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"
CAPTION = v1.TaskRequest(caption=v1.Caption())
SICK = [Health("there", server_is_live=True, model_is_ready=False, engine="starting")]


class Recorder:
    """Both kinds of transport; keeps what it is given."""

    def __init__(self):
        self.sent = []
        self.looks = []
        self.times_closed = 0
        self.error = None

    def infer(self, image, request, context):
        self.sent.append((image, v1.TaskRequest.FromString(request.SerializeToString()), context))
        if self.error is not None:
            raise self.error
        return Reply(task_response("A dog."), "there")

    async def infer_async(self, image, request, context):
        return self.infer(image, request, context)

    def stream(self, image, request, context):
        yield StreamReply(v1.StreamEvent(text_delta="A dog."), "there")
        if isinstance(self.error, v1.TaskError):
            yield StreamReply(v1.StreamEvent(error=self.error), "there")
        yield StreamReply(v1.StreamEvent(response=self.infer(image, request, context).response), "there")

    async def stream_async(self, image, request, context):
        for reply in self.stream(image, request, context):
            yield reply

    def is_ready(self, timeout):
        self.looks.append(timeout)
        return False

    async def is_ready_async(self, timeout):
        return self.is_ready(timeout)

    def health(self, timeout):
        self.looks.append(timeout)
        return SICK

    async def health_async(self, timeout):
        return self.health(timeout)

    def close(self):
        self.times_closed += 1

    async def close_async(self):
        self.close()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def use(client_type, recorder):
    """`use(lambda client: client.detect(...), **settings)`: do something with a client over the recorder."""

    def use(action, **settings):
        async def act():
            client = client_type(transport=recorder, **settings)
            try:
                return await settled(action(client))
            finally:
                await settled(client.close())

        return asyncio.run(act())

    return use


def test_the_transports_to_triton_have_the_methods_of_the_protocols():
    destination = Destination("localhost:1")
    transport = TritonTransport(destination)
    transport.close()
    assert isinstance(transport, Transport)
    assert isinstance(transport, StreamingTransport)
    asynchronous = AsyncTritonTransport(destination)
    assert isinstance(asynchronous, AsyncTransport)
    assert isinstance(asynchronous, AsyncStreamingTransport)


def test_a_list_of_urls_may_change_after_the_client_was_made():
    urls = ["localhost:1", "localhost:2"]
    destination = Destination(urls)
    urls.clear()
    assert destination.urls == ("localhost:1", "localhost:2")


def test_a_transport_gets_the_encoded_image_the_checked_request_and_the_context(use, recorder, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    before = time.monotonic()
    use(lambda client: client.detect(path, num_beams=2, priority=1, request_id="mine"), timeout=7)
    ((image, request, context),) = recorder.sent
    assert image == IMAGE
    expected = v1.TaskRequest(object_detection={}, generation={"num_beams": 2}, raw=True)
    assert request == expected
    assert (context.request_id, context.priority, context.timeout) == ("mine", 1, 7)
    assert before <= context.started <= time.monotonic()
    assert 6 < context.remaining() <= 7


def test_an_answer_names_the_server_that_the_transport_reports(use):
    answer = use(lambda client: client.run(IMAGE, CAPTION, request_id="mine"))
    assert (answer.result, answer.url, answer.request_id) == (Text("A dog."), "there", "mine")


def test_an_invalid_request_reaches_no_transport(use, recorder):
    with pytest.raises(InvalidArgumentError, match="num_beams"):
        use(lambda client: client.detect(IMAGE, num_beams=9))
    assert not recorder.sent


def test_errors_of_a_transport_reach_the_caller_with_the_request_id(use, recorder):
    recorder.error = UnavailableError("busy")
    with pytest.raises(UnavailableError, match=r"^busy$") as caught:
        use(lambda client: client.detect(IMAGE, request_id="mine"))
    assert (caught.value.request_id, caught.value.url) == ("mine", None)
    assert len(recorder.sent) == 1


async def answer_of(stream):
    """The answer at the end of a stream of either client."""
    events = [event async for event in stream] if isinstance(stream, AsyncEventStream) else list(stream)
    return events[-1].answer


def test_any_transport_may_stream(use, recorder):
    answer = use(lambda client: answer_of(client.stream(IMAGE, CAPTION, request_id="mine", priority=1)))
    assert (answer.result, answer.url, answer.request_id) == (Text("A dog."), "there", "mine")
    ((image, request, context),) = recorder.sent
    assert (image, request, context.request_id, context.priority) == (IMAGE, CAPTION, "mine", 1)


def test_the_error_event_of_a_transport_is_raised(use, recorder):
    recorder.error = v1.TaskError(status="UNAVAILABLE", message="busy")
    with pytest.raises(UnavailableError, match=r"^busy$") as caught:
        use(lambda client: answer_of(client.stream(IMAGE, CAPTION, request_id="mine")))
    assert (caught.value.request_id, caught.value.url) == ("mine", "there")
    assert not recorder.sent


def test_an_error_raised_by_a_streaming_transport_has_the_request_id(use, recorder):
    recorder.error = UnavailableError("busy")
    with pytest.raises(UnavailableError, match=r"^busy$") as caught:
        use(lambda client: answer_of(client.stream(IMAGE, CAPTION, request_id="mine")))
    assert caught.value.request_id == "mine"


def test_readiness_and_health_are_those_of_the_transport(use, recorder):
    assert use(lambda client: client.is_ready(timeout=3)) is False
    assert use(lambda client: client.health(timeout=2)) == SICK
    assert recorder.looks == [3, 2]


def test_a_transport_is_closed_with_its_client(use, recorder):
    use(lambda client: client.detect(IMAGE))
    assert recorder.times_closed == 1


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"url": "example:8001"}, "url"),
        ({"url": ["localhost:8001"]}, "url"),
        ({"model": "other"}, "model"),
        ({"model_version": "2"}, "model_version"),
        ({"tls": TLS()}, "tls"),
        ({"keepalive": Keepalive(interval=9)}, "keepalive"),
        ({"channel_args": [("a", 1)]}, "channel_args"),
        ({"headers": {"a": "b"}}, "headers"),
        ({"access_token": "secret"}, "access_token"),
        ({"retry": None}, "retry"),
        ({"url": "example:8001", "retry": Retry(attempts=2)}, "url, retry"),
    ],
)
def test_a_transport_excludes_the_settings_of_the_default_one(client_type, recorder, settings, names):
    expected = f"^transport: got .*, expected None, because settings of the default transport are given: {names}$"
    with pytest.raises(InvalidArgumentError, match=expected) as caught:
        client_type(transport=recorder, **settings)
    assert caught.value.field == "transport"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("client", "transport", "protocol"),
    [
        (Client, "localhost:8001", "Transport"),
        (Client, AsyncTritonTransport(Destination("localhost:1")), "Transport"),
        (AsyncClient, object(), "AsyncTransport"),
    ],
    ids=["a url", "an asynchronous one", "any object"],
)
def test_anything_but_a_transport_of_its_kind_is_a_type_error(client, transport, protocol):
    with pytest.raises(TypeError, match=f"^transport: got .*, expected an object with the methods of {protocol}$"):
        client(transport=transport)


@pytest.fixture(params=["blocking", "asynchronous"])
def infer(request, server):
    """`infer(image, request, context)`, with a transport to the fake server."""
    destination = Destination(server.url)

    def infer(*arguments):
        transport = TritonTransport(destination)
        try:
            return transport.infer(*arguments)
        finally:
            transport.close()

    async def infer_async(*arguments):
        transport = AsyncTritonTransport(destination)
        try:
            return await transport.infer_async(*arguments)
        finally:
            await transport.close_async()

    return infer if request.param == "blocking" else lambda *arguments: asyncio.run(infer_async(*arguments))


def test_a_transport_to_triton_returns_the_typed_response_and_the_server(server, infer):
    server.answer("</s><s>A dog.</s>")
    reply = infer(IMAGE, CAPTION, RequestContext())
    assert type(reply.response) is v1.TaskResponse
    assert (reply.response.text, reply.url) == ("</s><s>A dog.</s>", server.url)
    assert (server.last.element("IMAGE"), server.last.content) == (IMAGE, CAPTION)


def test_a_transport_to_triton_sends_the_context(server, infer):
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context = RequestContext("mine", priority=2, timeout=5, trace_context={"traceparent": traceparent})
    assert context.traceparent == traceparent
    infer(IMAGE, CAPTION, context)
    assert server.last.message.id == "mine"
    assert server.last.message.parameters["priority"].uint64_param == 2
    assert 4e6 < server.last.message.parameters["timeout"].int64_param <= 5e6
    assert server.last.metadata["traceparent"] == traceparent


def test_errors_of_a_transport_to_triton_name_request_and_server_without_a_client(server, infer):
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk, expected an image")
    with pytest.raises(InvalidArgumentError) as caught:
        infer(IMAGE, CAPTION, RequestContext("mine"))
    assert (caught.value.request_id, caught.value.url) == ("mine", server.url)


def test_a_context_whose_deadline_has_passed_sends_nothing(server, infer):
    with pytest.raises(DeadlineExceededError, match="before the request was sent"):
        infer(IMAGE, CAPTION, RequestContext(timeout=1, started=time.monotonic() - 2))
    assert not server.received


def test_a_context_by_default_has_no_deadline_and_no_trace():
    context = RequestContext()
    assert (context.remaining(), context.traceparent) == (None, None)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package is installed that registers a transport "recording"."""
    metadata = tmp_path / "their_transports-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-transports\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[florence2.transports]\nrecording = their_transports:Recording\n")
    code = """
        class Recording:
            def __init__(self, checkpoint):
                self.checkpoint = checkpoint
    """
    (tmp_path / "their_transports.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_a_transport_of_another_package_is_found_by_its_name():
    assert load_transport("recording")("owner/name").checkpoint == "owner/name"


@pytest.mark.usefixtures("installed")
def test_an_unknown_transport_is_an_error_that_lists_the_installed_ones():
    with pytest.raises(TransportNotFoundError, match=r"^transport: got 'recorded', expected one of .*\brecording\b"):
        load_transport("recorded")


def test_a_transport_that_is_not_installed_is_an_error_that_names_its_package(monkeypatch):
    monkeypatch.setattr("florence2.transports.entry_points.entry_points", lambda **_: EntryPoints())
    with pytest.raises(TransportNotFoundError, match="pip install florence2-triton-server"):
        load_transport("in_process")
