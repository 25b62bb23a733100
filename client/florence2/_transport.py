"""The wire: one Triton model over gRPC, as KServe v2. Nothing else in this package knows tritonclient.

What is tried again, where and when is `_attempts`'s to say. gRPC itself sends a call again that never left this
machine.
"""

# tritonclient comes without types.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import contextlib
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
from tenacity import AsyncRetrying, Retrying, sleep_using_event
from tritonclient.utils import InferenceServerException

from florence2._attempts import Attempts, Retry
from florence2._calls import Call
from florence2._health import Health, engine_state
from florence2._tracing import add_trace_context, call_span
from florence2.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    Florence2Error,
    InvalidArgumentError,
    MessageTooLargeError,
    ModelNotFoundError,
    RequestCancelledError,
    ServerError,
    UnavailableError,
)

# gRPC's statuses as errors. Every other status is a ServerError: a fault of the server (INTERNAL, UNKNOWN), or of how
# it is set up (UNIMPLEMENTED), which no other request mends.
_ERRORS: dict[str, type[Florence2Error]] = {
    "INVALID_ARGUMENT": InvalidArgumentError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "CANCELLED": RequestCancelledError,
    "NOT_FOUND": ModelNotFoundError,
    "UNAUTHENTICATED": AccessDeniedError,
    "PERMISSION_DENIED": AccessDeniedError,
}
# Where a status says less than its message: how gRPC words it, and Triton.
_ERRORS_BY_MESSAGE: dict[tuple[str, str], type[Florence2Error]] = {
    ("RESOURCE_EXHAUSTED", "larger than max"): MessageTooLargeError,
    ("UNAVAILABLE", "This protocol is restricted"): AccessDeniedError,
    ("NOT_FOUND", "has no available versions"): UnavailableError,  # while the server loads the model, or ends
}

# What Triton itself accepts. gRPC alone would stop at 4 MiB.
_MAX_MESSAGE_BYTES = 2**31 - 1

_MICROSECONDS = 1_000_000

# Waits between attempts to connect to a server that is gone; they double from the first to the last.
_FIRST_RECONNECT_MILLISECONDS = 200
_LAST_RECONNECT_MILLISECONDS = 5_000


@dataclass(frozen=True)
class TLS:
    """Encrypt the connection; with a key and a certificate of the client's own, mutual TLS.

    Each is the path of a PEM file.
    """

    root_certificates: str | os.PathLike[str] | None = None
    """The authorities to trust; None for those that gRPC ships with."""
    private_key: str | os.PathLike[str] | None = None
    """The client's key, where the server asks for a certificate."""
    certificate_chain: str | os.PathLike[str] | None = None
    """The client's certificate, followed by its intermediates."""

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidArgumentError("tls: got one of private_key and certificate_chain, expected both or neither")

    def credentials(self) -> Any:
        """The files' contents, for gRPC.

        Raises:
            OSError: a file cannot be read.
        """
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        return grpc.ssl_channel_credentials(*(None if file is None else Path(file).read_bytes() for file in files))


@dataclass(frozen=True)
class Keepalive:
    """How a connection that died unnoticed (a pulled cable, a forgetful NAT) is found out.

    Triton closes connections that are pinged more often than its
    `--grpc-http2-min-recv-ping-interval-without-data` allows, 300 seconds by default: lower the two together.
    """

    interval: float = 300.0
    """Seconds between pings on a quiet connection."""
    timeout: float = 20.0
    """Seconds without acknowledgement, of a ping or of data sent, after which the connection is given up."""
    without_calls: bool = False
    """Whether to ping while no call is in flight. Needs Triton's `--grpc-keepalive-permit-without-calls`."""

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            if not getattr(self, name) > 0:
                raise InvalidArgumentError.of_field(f"keepalive.{name}", getattr(self, name), "seconds above 0")


# A token, or what has the current one; it is asked before each call is sent.
AccessToken: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True)
class Destination:
    """Where the model is served, on one server or several alike, and how to get there."""

    urls: Sequence[str]
    model: str
    model_version: str
    tls: TLS | None
    keepalive: Keepalive
    channel_args: Sequence[tuple[str, Any]]
    headers: Mapping[str, str]
    access_token: AccessToken | None
    retry: Retry | None

    def __post_init__(self) -> None:
        if not self.urls:
            raise InvalidArgumentError.of_field("url", self.urls, "at least one")
        for url in self.urls:
            if url.startswith(("http://", "https://", "grpc://", "grpcs://")):
                raise InvalidArgumentError.of_field("url", url, '"host:port" of Triton\'s gRPC port')

    def metadata(self) -> dict[str, str]:
        """What goes with a call: the headers, with the lower-case names that HTTP/2 asks for, token and trace."""
        metadata = {name.lower(): value for name, value in self.headers.items()}
        if self.access_token is not None:
            token = self.access_token if isinstance(self.access_token, str) else self.access_token()
            metadata["authorization"] = f"Bearer {token}"
        add_trace_context(metadata)
        return metadata

    def model_arguments(self) -> dict[str, Any]:
        """Which model a call is for, and what goes with it, as tritonclient's arguments."""
        return {"model_name": self.model, "model_version": self.model_version, "headers": self.metadata()}

    @property
    def health_model(self) -> str:
        """The model that says how the engine behind `model` is."""
        return f"{self.model}_health"

    def channels(self) -> list[dict[str, Any]]:
        """The channel's part of tritonclient's constructor arguments, for each server."""
        credentials = None if self.tls is None else self.tls.credentials()
        arguments = list(self._channel_args().items())
        return [{"url": url, "creds": credentials, "channel_args": arguments} for url in self.urls]

    def _channel_args(self) -> dict[str, Any]:
        # channel_args replaces all that tritonclient sets by itself, so what it sets stands here again.
        return {
            "grpc.max_send_message_length": _MAX_MESSAGE_BYTES,
            "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
            # A replica that is restarted has its turn again within seconds, not two minutes.
            "grpc.initial_reconnect_backoff_ms": _FIRST_RECONNECT_MILLISECONDS,
            "grpc.max_reconnect_backoff_ms": _LAST_RECONNECT_MILLISECONDS,
            "grpc.keepalive_time_ms": round(self.keepalive.interval * 1000),
            "grpc.keepalive_timeout_ms": round(self.keepalive.timeout * 1000),
            "grpc.keepalive_permit_without_calls": int(self.keepalive.without_calls),
            **dict(self.channel_args),
        }


class Transport:
    """Calls that block. Safe to share among threads."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._attempts = Attempts(len(destination.urls), destination.retry)
        self._clients = [tritonclient.grpc.InferenceServerClient(**channel) for channel in destination.channels()]
        self._closing = threading.Event()

    def infer(self, image: bytes, call: Call) -> bytes:
        """The bytes of the response to a call about an encoded image."""
        endpoints = self._attempts.endpoints()
        retrying = Retrying(**self._attempts.policy(call), sleep=sleep_using_event(self._closing))
        with call_span(self._destination.model, call):
            return retrying(lambda: self._infer(self._clients[next(endpoints)], image, call))

    def _infer(self, client: Any, image: bytes, call: Call) -> bytes:
        _require_open(self._closing)
        with _own_errors():
            result = client.infer(**self._destination.model_arguments(), **_infer_arguments(image, call))
            return _element(result, "RESPONSE")

    def is_ready(self, timeout: float | None) -> bool:
        """Whether a server says that the model is loaded; each is given `timeout` seconds."""
        return any(self._is_ready(client, timeout) for client in self._clients)

    def _is_ready(self, client: Any, timeout: float | None) -> bool:
        try:
            with _own_errors():
                return bool(client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout))
        except (UnavailableError, DeadlineExceededError):
            return False

    def health(self, timeout: float) -> list[Health]:
        """How each server is, within so many seconds each."""
        return [
            self._health(url, client, timeout)
            for url, client in zip(self._destination.urls, self._clients, strict=True)
        ]

    def _health(self, url: str, client: Any, timeout: float) -> Health:
        live = ready = False
        try:
            with _own_errors():
                options = {"headers": self._destination.metadata(), "client_timeout": timeout}
                live = client.is_server_live(**options)
                ready = client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout)
                result = client.infer(self._destination.health_model, [_tensor("ABOUT", [b"engine"])], **options)
                return Health(url, live, ready, engine_state(_element(result, "STATE").decode()))
        except Florence2Error as error:
            return Health(url, live, ready, "unreachable", str(error))

    def close(self) -> None:
        """Give the connections back; calls in flight are cancelled."""
        self._closing.set()
        for client in self._clients:
            client.close()


class AsyncTransport:
    """Calls that are awaited, in one event loop."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._attempts = Attempts(len(destination.urls), destination.retry)
        self._channels = destination.channels()
        self._closing = asyncio.Event()

    @cached_property
    def _clients(self) -> list[Any]:
        # Made by the first call: a channel belongs to the event loop that runs when it is made.
        return [tritonclient.grpc.aio.InferenceServerClient(**channel) for channel in self._channels]

    async def infer(self, image: bytes, call: Call) -> bytes:
        """The bytes of the response to a call about an encoded image."""
        endpoints = self._attempts.endpoints()

        async def attempt() -> bytes:
            return await self._infer(self._clients[next(endpoints)], image, call)

        with call_span(self._destination.model, call):
            return await AsyncRetrying(**self._attempts.policy(call), sleep=self._sleep)(attempt)

    async def _infer(self, client: Any, image: bytes, call: Call) -> bytes:
        _require_open(self._closing)
        with _own_errors(), _own_cancellation():
            arguments = _infer_arguments(image, call)
            result = await client.infer(**self._destination.model_arguments(), **arguments)
            return _element(result, "RESPONSE")

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def is_ready(self, timeout: float | None) -> bool:
        """Whether a server says that the model is loaded; each is given `timeout` seconds."""
        return any([await self._is_ready(client, timeout) for client in self._clients])

    async def _is_ready(self, client: Any, timeout: float | None) -> bool:
        try:
            with _own_errors(), _own_cancellation():
                asked = client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout)
                return bool(await asked)
        except (UnavailableError, DeadlineExceededError):
            return False

    async def health(self, timeout: float) -> list[Health]:
        """How each server is, within so many seconds."""
        pairs = zip(self._destination.urls, self._clients, strict=True)
        return list(await asyncio.gather(*(self._health(url, client, timeout) for url, client in pairs)))

    async def _health(self, url: str, client: Any, timeout: float) -> Health:
        live = ready = False
        try:
            with _own_errors(), _own_cancellation():
                options = {"headers": self._destination.metadata(), "client_timeout": timeout}
                live = await client.is_server_live(**options)
                ready = await client.is_model_ready(**self._destination.model_arguments(), client_timeout=timeout)
                result = await client.infer(self._destination.health_model, [_tensor("ABOUT", [b"engine"])], **options)
                return Health(url, live, ready, engine_state(_element(result, "STATE").decode()))
        except Florence2Error as error:
            return Health(url, live, ready, "unreachable", str(error))

    async def close(self) -> None:
        """Give the connections back; calls in flight are cancelled."""
        self._closing.set()
        if "_clients" in vars(self):
            for client in self._clients:
                await client.close()


def _require_open(closing: threading.Event | asyncio.Event) -> None:
    """A client may be closed while a call waits for its next attempt."""
    if closing.is_set():
        raise RequestCancelledError("the client was closed while the call was in flight")


def _infer_arguments(image: bytes, call: Call) -> dict[str, Any]:
    # A batch of one row.
    inputs = [_tensor("IMAGE", [[image]]), _tensor("REQUEST", [[call.request.SerializeToString()]])]
    remaining = call.remaining()
    return {
        "inputs": inputs,
        "request_id": call.request_id,
        "priority": call.priority,
        # Triton counts 0 as no limit.
        "timeout": None if remaining is None else max(1, round(remaining * _MICROSECONDS)),
        "client_timeout": remaining,
    }


def _tensor(name: str, values: list[Any]) -> Any:
    # Objects, because numpy's own bytes type loses trailing zeros.
    array = np.array(values, dtype=np.object_)
    return tritonclient.grpc.InferInput(name, array.shape, "BYTES").set_data_from_numpy(array)


def _element(result: Any, name: str) -> bytes:
    """The one element of a tensor."""
    try:
        tensor = result.as_numpy(name)
    except (struct.error, TypeError, ValueError) as error:  # lengths or a shape that do not fit
        raise ServerError(f"the {name} tensor cannot be read") from error
    if tensor is None or tensor.size != 1 or not isinstance(tensor.item(), bytes):
        raise ServerError(f"the response has no {name} tensor with one BYTES element")
    return bytes(tensor.item())


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        # "StatusCode.UNAVAILABLE"; None where tritonclient itself is the one that objects.
        status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
        message = error.message() or status
        for (of_status, words), error_type in _ERRORS_BY_MESSAGE.items():
            if status == of_status and words in message:
                raise error_type(message) from error
        if status not in _ERRORS:
            raise ServerError(f"{status}: {message}") from error
        raise _ERRORS[status](message) from error


@contextmanager
def _own_cancellation() -> Iterator[None]:
    """Tell the caller's cancellation, which goes on its way, from a channel that was closed under the call."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RequestCancelledError("the client was closed while the call was in flight") from error
