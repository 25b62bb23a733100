"""Spans of OpenTelemetry, where its API is installed; nothing where it is not."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from florence2._calls import Call
from florence2.tasks import task_of

try:
    from opentelemetry import propagate, trace
except ImportError:
    _HAS_OPENTELEMETRY = False
else:
    _HAS_OPENTELEMETRY = True


@contextmanager
def call_span(model: str, call: Call) -> Iterator[None]:
    """A client's span around a call and all its attempts. An error that is raised in it is recorded there."""
    if not _HAS_OPENTELEMETRY:
        yield
        return
    known_task = task_of(call.request)
    task = "free_prompt" if known_task is None else known_task.name
    attributes = {"florence2.model": model, "florence2.task": task, "florence2.request_id": call.request_id}
    tracer = trace.get_tracer("florence2")
    with tracer.start_as_current_span(f"florence2 {task}", kind=trace.SpanKind.CLIENT, attributes=attributes):
        yield


def add_trace_context(metadata: MutableMapping[str, str]) -> None:
    """Write the current span into a call's metadata, as the application's propagators say (W3C's `traceparent`)."""
    if _HAS_OPENTELEMETRY:
        propagate.inject(metadata)
