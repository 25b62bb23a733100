"""OpenTelemetry spans."""

import subprocess
import sys

import grpc
import pytest
from florence2 import v1
from florence2.client import AsyncEventStream, Client
from florence2.errors import InvalidArgumentError
from florence2.testing import MockTransport, task_response
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.client.fake_server import task_response as scripted_response

pytest_plugins = ["tests.client.fake_server"]

IMAGE = b"an encoded image"


@pytest.fixture
def spans(monkeypatch):
    """The spans that have ended."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter.get_finished_spans
    provider.shutdown()


def test_a_request_is_a_span_whose_trace_context_is_sent(server, use, spans):
    server.fail_first(1)
    use(lambda client: client.caption(IMAGE, request_id="mine"))
    (span,) = spans()
    assert (span.name, span.kind) == ("florence2 caption", trace.SpanKind.CLIENT)
    assert dict(span.attributes) == {
        "florence2.model": "florence2",
        "florence2.task": "caption",
        "florence2.request_id": "mine",
    }
    parents = [received.metadata["traceparent"].rsplit("-", 1)[0] for received in server.received]
    assert parents == [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"] * 2


def test_the_span_of_a_request_names_its_adapter(use, spans):
    use(lambda client: client.caption(IMAGE, adapter="tags"))
    use(lambda client: client.run(IMAGE, v1.TaskRequest(ocr={}, adapter="pages")))
    use(lambda client: client.caption(IMAGE))
    named, run, plain = spans()
    assert [span.attributes.get("florence2.adapter") for span in (named, run, plain)] == ["tags", "pages", None]


def test_the_span_of_a_stream_names_its_adapter(server, use, spans):
    response = v1.TaskResponse.FromString(scripted_response("</s><s>A dog.</s>"))
    server.stream(v1.StreamEvent(response=response))
    use(lambda client: current_spans(client.stream(IMAGE, v1.TaskRequest(ocr={}, adapter="pages"))))
    (span,) = spans()
    assert span.attributes["florence2.adapter"] == "pages"


def test_every_transport_gets_the_trace_context(spans):
    contexts = []

    class Recorder(MockTransport):
        def infer(self, image, request, context):
            contexts.append(context)
            return super().infer(image, request, context)

    with Client(transport=Recorder(lambda *_: task_response("A dog."))) as client:
        client.caption(IMAGE)
    (span,) = spans()
    assert "florence2.model" not in span.attributes
    assert contexts[0].traceparent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")


def test_health_checks_carry_the_trace_context_of_the_caller(server, use, spans):
    with trace.get_tracer("caller").start_as_current_span("check") as caller:
        use(lambda client: client.health())
    assert f"{caller.get_span_context().trace_id:032x}" in server.health_metadata["traceparent"]
    assert [span.name for span in spans()] == ["check"]


def test_an_error_is_recorded_in_its_span(server, use, spans):
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    with pytest.raises(InvalidArgumentError):
        use(lambda client: client.caption(IMAGE))
    (span,) = spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "IMAGE: got junk" in span.status.description


async def current_spans(stream):
    """The caller's current span at each event of a stream of either client."""
    found = []
    if isinstance(stream, AsyncEventStream):
        async for _ in stream:
            found.append(trace.get_current_span())  # noqa: PERF401 - a comprehension has a context of its own
    else:
        for _ in stream:
            found.append(trace.get_current_span())  # noqa: PERF401
    return found


def test_a_stream_is_a_span_that_is_not_current_between_its_events(server, use, spans):
    response = v1.TaskResponse.FromString(scripted_response("</s><s>A dog.</s>"))
    server.stream(v1.StreamEvent(text_delta="</s><s>A dog.</s>"), v1.StreamEvent(response=response))
    with trace.get_tracer("caller").start_as_current_span("page") as caller:
        found = use(lambda client: current_spans(client.stream(IMAGE, v1.TaskRequest(ocr={}), request_id="mine")))
    assert found == [caller] * 2
    span, _ = spans()
    assert (span.name, span.kind, span.attributes["florence2.request_id"]) == (
        "florence2 ocr",
        trace.SpanKind.CLIENT,
        "mine",
    )
    assert span.parent.span_id == caller.get_span_context().span_id
    assert server.last.metadata["traceparent"].startswith(
        f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"
    )


def test_an_error_is_recorded_in_the_span_of_its_stream(server, use, spans):
    server.stream(v1.StreamEvent(error={"status": "INVALID_ARGUMENT", "message": "IMAGE: got junk"}))
    with pytest.raises(InvalidArgumentError):
        use(lambda client: current_spans(client.stream(IMAGE, v1.TaskRequest(caption={}))))
    (span,) = spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "IMAGE: got junk" in span.status.description


def test_the_span_of_a_cascade_has_its_name(server, use, spans):
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    with pytest.raises(InvalidArgumentError):
        use(lambda client: client.ground_caption(IMAGE))
    (span,) = spans()
    assert (span.name, span.attributes["florence2.task"]) == ("florence2 caption_grounding", "caption_grounding")


def test_requests_work_without_opentelemetry(server):
    response = v1.TaskResponse.FromString(scripted_response("</s><s>A dog.</s>"))
    server.stream(v1.StreamEvent(response=response))
    code = """
import sys
sys.modules["opentelemetry"] = None
import florence2
with florence2.Client(sys.argv[1]) as client:
    client.caption(b"an encoded image")
    list(client.stream(b"an encoded image", florence2.v1.TaskRequest(caption={})))
"""
    subprocess.run([sys.executable, "-c", code, server.url], check=True, timeout=60)
    assert "traceparent" not in server.last.metadata
