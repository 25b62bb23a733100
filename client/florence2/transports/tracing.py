"""OpenTelemetry spans and trace context, if its API is installed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from florence2 import v1
from florence2.plans import plan_name

try:
    from opentelemetry import context, propagate, trace
except ImportError:
    _HAS_OPENTELEMETRY = False
else:
    _HAS_OPENTELEMETRY = True


@contextmanager
def request_span(request: v1.TaskRequest, request_id: str, attributes: Mapping[str, str]) -> Iterator[None]:
    """A client span around all attempts of a request, which records errors raised in it."""
    if not _HAS_OPENTELEMETRY:
        yield
        return
    with trace.use_span(_started_span(request, request_id, attributes), end_on_exit=True):
        yield


@contextmanager
def stream_span(request: v1.TaskRequest, request_id: str, attributes: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A client span around a stream, which records errors raised in it. Yields the headers that continue it.

    It is never the current span, because the caller's own code runs between events.
    """
    if not _HAS_OPENTELEMETRY:
        yield {}
        return
    span = _started_span(request, request_id, attributes)
    with trace.use_span(span):
        headers = current_trace_context()
    try:
        yield headers
    except Exception as error:
        span.record_exception(error)
        span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
        raise
    finally:
        span.end()


def _started_span(request: v1.TaskRequest, request_id: str, attributes: Mapping[str, str]) -> "trace.Span":
    name = plan_name(request)
    attributes = {**attributes, "florence2.task": name, "florence2.request_id": request_id}
    if request.adapter:
        attributes["florence2.adapter"] = request.adapter
    tracer = trace.get_tracer("florence2")
    return tracer.start_span(f"florence2 {name}", kind=trace.SpanKind.CLIENT, attributes=attributes)


def current_trace_context() -> dict[str, str]:
    """The headers that continue the current span, in the format of the application's propagators (`traceparent`)."""
    headers: dict[str, str] = {}
    if _HAS_OPENTELEMETRY:
        propagate.inject(headers)
    return headers


@contextmanager
def continued_trace(headers: Mapping[str, str]) -> Iterator[None]:
    """Make requests in this context continue the trace in a caller's headers (`traceparent`), if there is one.

    Args:
        headers: with names in lower case.
    """
    if not _HAS_OPENTELEMETRY:
        yield
        return
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)
