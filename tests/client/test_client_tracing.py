"""Spans, where OpenTelemetry is installed."""

import subprocess
import sys

import grpc
import pytest
from florence2.errors import InvalidArgumentError
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

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


def test_a_call_is_a_span_that_the_server_hears_of(server, ask, spans):
    server.fail_first(1)
    ask(lambda client: client.caption(IMAGE, request_id="mine"))
    (span,) = spans()
    assert (span.name, span.kind) == ("florence2 caption", trace.SpanKind.CLIENT)
    assert dict(span.attributes) == {
        "florence2.model": "florence2",
        "florence2.task": "caption",
        "florence2.request_id": "mine",
    }
    parents = [received.metadata["traceparent"].rsplit("-", 1)[0] for received in server.received]
    assert parents == [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}"] * 2


def test_an_error_is_recorded_in_its_span(server, ask, spans):
    server.fail(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE: got junk")
    with pytest.raises(InvalidArgumentError):
        ask(lambda client: client.caption(IMAGE))
    (span,) = spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert "IMAGE: got junk" in span.status.description


def test_without_opentelemetry_calls_are_made_all_the_same(server):
    code = """
import sys
sys.modules["opentelemetry"] = None
import florence2
with florence2.Client(sys.argv[1]) as client:
    client.caption(b"an encoded image")
"""
    subprocess.run([sys.executable, "-c", code, server.url], check=True, timeout=60)
    assert "traceparent" not in server.last.metadata
