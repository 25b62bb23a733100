"""Where a model is served, how to connect to it, and how to retry."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from florence2._arguments import check_integer, check_optional, check_seconds, check_text, check_texts
from florence2.errors import InvalidArgumentError, require_type

# What Triton itself accepts. gRPC alone would stop at 4 MiB.
_MAX_MESSAGE_BYTES = 2**31 - 1

LAST_RECONNECT_SECONDS = 1.0
"""The maximum time between attempts to reconnect, and so between a server's start and its first request."""

_FIRST_RECONNECT_MILLISECONDS = 100
# gRPC gives up connecting after 20 seconds by default. A machine that is off answers no packet, and the requests that
# wait for a connection to it go to the next server after this time: enough for two lost packets.
_CONNECT_MILLISECONDS = 5_000
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class TLS:
    """Encryption of the connection; mutual TLS with a private key and a certificate of the client.

    Each field is the path of a PEM file.
    """

    root_certificates: str | os.PathLike[str] | None = None
    """The certificate authorities to trust; None for those that gRPC ships with."""
    private_key: str | os.PathLike[str] | None = None
    """The client's private key, for servers that require client certificates."""
    certificate_chain: str | os.PathLike[str] | None = None
    """The client's certificate, followed by its intermediates."""

    def __post_init__(self) -> None:
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidArgumentError("tls: got one of private_key and certificate_chain, expected both or neither")

    def credentials(self) -> Any:
        """The channel credentials for gRPC, read from the files.

        Raises:
            OSError: a file cannot be read.
        """
        files = (self.root_certificates, self.private_key, self.certificate_chain)
        return grpc.ssl_channel_credentials(*(None if file is None else Path(file).read_bytes() for file in files))


@dataclass(frozen=True)
class Keepalive:
    """HTTP/2 pings that detect a broken connection (a pulled cable, an expired NAT entry).

    Triton closes connections that are pinged more often than its
    `--grpc-http2-min-recv-ping-interval-without-data` allows, 300 seconds by default: lower the two together.
    """

    interval: float = 300.0
    """Seconds between pings on an idle connection."""
    timeout: float = 20.0
    """Seconds without acknowledgment, of a ping or of data sent, after which the connection is closed."""
    without_calls: bool = False
    """Whether to ping while no request is in flight. Needs Triton's `--grpc-keepalive-permit-without-calls`."""

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            check_seconds(f"keepalive.{name}", getattr(self, name))


@dataclass(frozen=True)
class Retry:
    """How requests that fail with `UnavailableError` are retried: by default, until the request's deadline.

    Retries wait by exponential backoff with full jitter. Among several servers, one that failed is avoided for as
    long, and then probed by one request at a time.
    """

    attempts: int | None = None
    """The maximum number of times that a request is sent, including the first; each server gets at least one. None:
    until the request's deadline, or, if it has none, until a minute after its first failure."""
    initial_backoff: float = 0.1
    """Upper bound of the first wait, in seconds. It doubles with each further one."""
    max_backoff: float = 5.0
    """Upper bound of all waits, in seconds. While no server can be reached, waits are at most a second."""

    def __post_init__(self) -> None:
        if self.attempts is not None and check_integer("retry.attempts", self.attempts) < 1:
            raise InvalidArgumentError.of_field("retry.attempts", self.attempts, "at least 1")
        for name in ("initial_backoff", "max_backoff"):
            check_seconds(f"retry.{name}", getattr(self, name))


AccessToken: TypeAlias = str | Callable[[], str]
"""A bearer token, or a function that returns the current one, called before each attempt."""


@dataclass(frozen=True)
class Destination:
    """The servers of a model, and the settings of the connections to them. `florence2.Client` documents the fields."""

    url: str | Sequence[str] = "localhost:8001"
    model: str = "florence2"
    model_version: str = ""
    tls: TLS | None = None
    keepalive: Keepalive = Keepalive()  # frozen
    channel_args: Sequence[tuple[str, Any]] = ()
    headers: Mapping[str, str] | None = None
    access_token: AccessToken | None = None
    retry: Retry | None = Retry()  # frozen

    def __post_init__(self) -> None:
        self._check_types()
        if not self.urls:
            raise InvalidArgumentError.of_field("url", self.url, "at least one")
        for url in self.urls:
            if url.startswith(("http://", "https://", "grpc://", "grpcs://")):
                raise InvalidArgumentError.of_field("url", url, '"host:port" of Triton\'s gRPC port')

    def _check_types(self) -> None:
        if isinstance(self.url, str):
            check_text("url", self.url)
        else:
            check_texts("url", self.url)
        check_text("model", self.model)
        check_text("model_version", self.model_version)
        check_optional("tls", self.tls, TLS)
        require_type("keepalive", self.keepalive, Keepalive)
        check_optional("retry", self.retry, Retry)
        check_optional("headers", self.headers, Mapping)
        for name, value in (self.headers or {}).items():
            if not _HEADER_NAME.fullmatch(check_text("headers", name)):
                # Not the name itself: of a password without one, it may be a part.
                raise InvalidArgumentError("headers: got a name that is none, expected letters, digits, -, _ and .")
            _check_secret(f"headers[{name!r}]", value)
        if self.access_token is not None and not callable(self.access_token):
            _check_secret("access_token", self.access_token, "a str or a function that returns one")

    @cached_property
    def urls(self) -> tuple[str, ...]:
        """The servers' addresses; a copy, because the caller may change a list later."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)

    def changed_fields(self) -> list[str]:
        """Names of the fields that differ from their defaults."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]

    def metadata(self, trace_context: Mapping[str, str]) -> dict[str, str]:
        """The gRPC metadata of a call: headers (in lower case, as HTTP/2 requires), access token and trace context."""
        metadata = {name.lower(): value for name, value in (self.headers or {}).items()}
        if self.access_token is not None:
            token = self.access_token if isinstance(self.access_token, str) else self.access_token()
            metadata["authorization"] = f"Bearer {_check_secret('access_token', token)}"
        return {**metadata, **trace_context}

    def model_arguments(self, trace_context: Mapping[str, str]) -> dict[str, Any]:
        """The model and the metadata of a call, as arguments of tritonclient."""
        metadata = self.metadata(trace_context)
        return {"model_name": self.model, "model_version": self.model_version, "headers": metadata}

    @property
    def health_model(self) -> str:
        """The model that reports the state of the engine behind `model`."""
        return f"{self.model}_health"

    @property
    def stream_model(self) -> str:
        """The decoupled model that streams the answers of `model`. Its versions are not those of `model`."""
        return f"{self.model}_stream"

    def channels(self) -> list[dict[str, Any]]:
        """The channel's part of tritonclient's constructor arguments, for each server."""
        credentials = None if self.tls is None else self.tls.credentials()
        arguments = list(self._channel_args().items())
        return [{"url": url, "creds": credentials, "channel_args": arguments} for url in self.urls]

    def _channel_args(self) -> dict[str, Any]:
        # channel_args replaces everything that tritonclient sets by default, so those settings are repeated here.
        return {
            "grpc.max_send_message_length": _MAX_MESSAGE_BYTES,
            "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
            # A restarted replica gets requests again within seconds, not after two minutes.
            "grpc.initial_reconnect_backoff_ms": _FIRST_RECONNECT_MILLISECONDS,
            "grpc.max_reconnect_backoff_ms": round(LAST_RECONNECT_SECONDS * 1000),
            "grpc.min_reconnect_backoff_ms": _CONNECT_MILLISECONDS,  # despite its name, the timeout of connecting
            "grpc.keepalive_time_ms": round(self.keepalive.interval * 1000),
            "grpc.keepalive_timeout_ms": round(self.keepalive.timeout * 1000),
            "grpc.keepalive_permit_without_calls": int(self.keepalive.without_calls),
            **dict(self.channel_args),
        }


def _check_secret(argument: str, value: object, accepted: str = "a str") -> str:
    """Like `check_text`, but with errors that do not show the value, which may be a password."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: got a value of type {type(value).__name__}, expected {accepted}")
    if not (value.isascii() and value.isprintable()):
        raise InvalidArgumentError(
            f"{argument}: got characters that are not printable ASCII, which HTTP/2 headers require; a line's end?"
        )
    return value
