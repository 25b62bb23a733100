"""Where a model is served, and how to get there."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from florence2._arguments import check_optional, check_seconds, check_text
from florence2._attempts import Retry
from florence2._tracing import add_trace_context
from florence2.errors import InvalidArgumentError, require_type

# What Triton itself accepts. gRPC alone would stop at 4 MiB.
_MAX_MESSAGE_BYTES = 2**31 - 1

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
            check_seconds(f"keepalive.{name}", getattr(self, name))


def _check_secret(argument: str, value: object, accepted: str = "a str") -> str:
    """Like `check_text`, but with errors that do not show the value, which may be a password."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: got a value of type {type(value).__name__}, expected {accepted}")
    if not value.isascii():
        raise InvalidArgumentError(f"{argument}: got non-ASCII characters, expected ASCII, as HTTP/2 headers require")
    return value


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
        self._check_types()
        if not self.urls:
            raise InvalidArgumentError.of_field("url", self.urls, "at least one")
        for url in self.urls:
            if url.startswith(("http://", "https://", "grpc://", "grpcs://")):
                raise InvalidArgumentError.of_field("url", url, '"host:port" of Triton\'s gRPC port')

    def _check_types(self) -> None:
        check_text("model", self.model)
        check_text("model_version", self.model_version)
        check_optional("tls", self.tls, TLS)
        require_type("keepalive", self.keepalive, Keepalive)
        check_optional("retry", self.retry, Retry)
        require_type("headers", self.headers, Mapping)
        for name, value in self.headers.items():
            check_text("headers", name)
            _check_secret(f"headers[{name!r}]", value)
        if self.access_token is not None and not callable(self.access_token):
            _check_secret("access_token", self.access_token, "a str or a function that returns one")

    def metadata(self) -> dict[str, str]:
        """What goes with a call: the headers, with the lower-case names that HTTP/2 asks for, token and trace."""
        metadata = {name.lower(): value for name, value in self.headers.items()}
        if self.access_token is not None:
            token = self.access_token if isinstance(self.access_token, str) else self.access_token()
            metadata["authorization"] = f"Bearer {_check_secret('access_token', token)}"
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
