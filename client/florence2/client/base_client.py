"""What `Client` and `AsyncClient` share: everything that needs no I/O."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

from florence2 import v1
from florence2._arguments import check_priority, check_request_id, check_timeout, refuse_unknown
from florence2.client.answers import Answer, TruncatedAnswerError
from florence2.client.filters import Filters
from florence2.client.typed_requests import ResultT
from florence2.errors import InvalidArgumentError, located, require_type, wrong_type
from florence2.options import CallOptions, RunOptions
from florence2.plans import check_plan
from florence2.transports.attempts import Attempts
from florence2.transports.destination import TLS, AccessToken, Destination, Keepalive, Retry
from florence2.transports.protocol import AsyncTransport, RequestContext, Transport
from florence2.transports.tracing import current_trace_context, request_span, stream_span

_DEFAULT_TIMEOUT = 60.0

TransportT = TypeVar("TransportT", Transport, AsyncTransport)


class BaseClient(ABC, Generic[TransportT]):
    """Settings, checks of requests, and reading of responses.

    Both clients have this constructor; `Client` documents it.
    """

    _protocol: ClassVar[Any]

    def __init__(
        self,
        url: str | Sequence[str] = "localhost:8001",
        *,
        transport: TransportT | None = None,
        model: str = "florence2",
        model_version: str = "",
        timeout: float | None = _DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        keepalive: Keepalive = Keepalive(),  # noqa: B008  # frozen
        channel_args: Sequence[tuple[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        access_token: AccessToken | None = None,
        retry: Retry | None = Retry(),  # noqa: B008  # frozen
    ) -> None:
        self._timeout = check_timeout(timeout)
        self._is_closed = False
        destination = Destination(url, model, model_version, tls, keepalive, channel_args, headers, access_token, retry)
        if transport is not None:
            self._check_transport(transport, destination)
        self._span_attributes = {"florence2.model": model} if transport is None else {}
        self._transport: TransportT = self._connect(destination) if transport is None else transport
        # Only the default transport is known to retry. `map` does it for the others.
        self._map_attempts = None if transport is None else Attempts(["the transport"], Retry())

    @abstractmethod
    def _connect(self, destination: Destination) -> TransportT:
        """Make the default transport."""

    def _check_transport(self, transport: object, destination: Destination) -> None:
        if not isinstance(transport, self._protocol):
            raise wrong_type("transport", transport, f"an object with the methods of {self._protocol.__name__}")
        if settings := destination.changed_fields():
            requirement = f"None, because settings of the default transport are given: {', '.join(settings)}"
            raise InvalidArgumentError.of_field("transport", transport, requirement)

    def _lacks_method(self, method: str) -> TypeError:
        return wrong_type("transport", self._transport, f"an object that also has the method {method}")

    def _copied(self, request: v1.TaskRequest, options: CallOptions, known: Iterable[str]) -> v1.TaskRequest:
        """A copy of the request that was passed to `run` or `stream`, which belongs to the caller."""
        require_type("request", request, v1.TaskRequest)
        refuse_unknown(options, known)
        copy = v1.TaskRequest()
        copy.CopyFrom(request)
        return copy

    def _prepare(self, request: v1.TaskRequest, options: CallOptions) -> RequestContext:
        """Check a request and its options, and return its context."""
        check_plan(request)
        return RequestContext(
            request_id=check_request_id(options.get("request_id")),
            priority=check_priority(options.get("priority")) or request.priority,
            timeout=check_timeout(options.get("timeout", request.timeout_seconds or self._timeout)),
            started=time.monotonic(),
        )

    @staticmethod
    def _filters(request: v1.TaskRequest, options: RunOptions) -> Filters:
        """The conditions for items in the options of a request, after checking that they apply to its results."""
        filters = Filters.of_options(options)
        filters.check(request)
        return filters

    def _require_open(self) -> None:
        # Like a closed file. Not a Florence2Error, because neither a server nor the input is wrong.
        if self._is_closed:
            raise RuntimeError("the client is closed")

    @contextmanager
    def _sending(self, request: v1.TaskRequest, context: RequestContext) -> Iterator[RequestContext]:
        """Trace a request, add its id to errors, and yield the context with the trace."""
        span = request_span(request, context.request_id, self._span_attributes)
        with located(None, context.request_id), span:
            yield replace(context, trace_context=current_trace_context())

    @contextmanager
    def _streaming(self, request: v1.TaskRequest, context: RequestContext) -> Iterator[RequestContext]:
        """As `_sending`, for the time between the first event of a stream and the last."""
        span = stream_span(request, context.request_id, self._span_attributes)
        with located(None, context.request_id), span as trace_context:
            yield replace(context, trace_context=trace_context)

    @staticmethod
    def _whole_result(answer: Answer, result_type: type[ResultT]) -> ResultT:
        """The bare result of a task method.

        Raises:
            TruncatedAnswerError: the answer is truncated.
        """
        if answer.is_truncated:
            raise TruncatedAnswerError(answer)
        # The task decides the type, and `TypedRequest` names both.
        assert isinstance(answer.result, result_type)
        return answer.result
