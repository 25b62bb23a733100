"""The exceptions of this package.

Florence2Error
├── InvalidArgumentError      the request is invalid; retrying does not help (also a ValueError)
├── UnavailableError          the server is full, starting, stopping or unreachable; safe to retry
├── DeadlineExceededError     the caller's timeout expired (also a TimeoutError)
├── RequestCancelledError     the caller cancelled the request
├── TruncatedAnswerError      the answer was truncated at its length limit; it is in `answer` (florence2.client)
├── MessageTooLargeError      the message exceeds a limit of the client, the server or a proxy
└── ServerError               a fault of the server, or a response that no florence2 server sends
    ├── ModelNotFoundError    the server does not have the model, or not this version of it
    └── AccessDeniedError     the server requires a different token, header or certificate

An argument of the wrong type raises Python's TypeError, which names the argument and the accepted types.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

_SHOWN_CHARACTERS = 80
# The message of `InvalidArgumentError.of_field`; in a request of several batch elements, preceded by the
# element, which older servers call a row.
_REJECTION = re.compile(
    r"(?:(?:batch element|row) \d+: )?(?P<field>[^:]+): got (?P<value>.*), expected (?P<requirement>.+)", re.DOTALL
)


class Florence2Error(Exception):
    """Base of every error that this package raises intentionally.

    Attributes:
        request_id: identifies the request in the server's log; None if there was no request yet.
        url: the server that the request was sent to, or the last of several; None if it was not sent.
    """

    request_id: str | None = None
    url: str | None = None


class InvalidArgumentError(Florence2Error, ValueError):
    """The request is invalid. The message names the field, the value and the limit.

    Attributes:
        field: the path of the field or argument, e.g. `"phrase_grounding.caption"`; None if the message names none.
        value: the invalid value; if the server rejected it, as shown in the server's message.
        requirement: the accepted values, with the limit, e.g. `"at most 447 tokens"`.
    """

    field: str | None = None
    value: object = None
    requirement: str | None = None

    @classmethod
    def of_message(cls, message: str) -> "InvalidArgumentError":
        """The error for a server's message."""
        error = cls(message)
        if found := _REJECTION.fullmatch(message):
            error.field, error.value, error.requirement = found["field"], found["value"], found["requirement"]
        return error

    @classmethod
    def of_field(cls, field: str, value: object, requirement: str) -> "InvalidArgumentError":
        """The error for a `field` whose `value` does not meet the `requirement`.

        Args:
            field: the path of the field or argument, e.g. `"phrase_grounding.caption"`.
            value: the invalid value; long values are shortened in the message.
            requirement: the accepted values, with the limit, e.g. `"at most 447 tokens"`.
        """
        error = cls(f"{field}: got {_shown(value)}, expected {requirement}")
        error.field, error.value, error.requirement = field, value, requirement
        return error


class UnavailableError(Florence2Error):
    """The server is full, starting, stopping or unreachable. There was no answer; retrying is safe.

    Attributes:
        is_refusal: whether a server refused the request; False if none could be reached or the connection broke.
    """

    is_refusal: bool = True


class DeadlineExceededError(Florence2Error, TimeoutError):
    """The caller's timeout expired before the answer was complete."""


class RequestCancelledError(Florence2Error):
    """The caller cancelled the request."""


class MessageTooLargeError(Florence2Error):
    """The request or the response exceeds a limit of the client, the server or a proxy between them."""


class ServerError(Florence2Error):
    """A fault of the server, or a response that no florence2 server sends."""


class ModelNotFoundError(ServerError):
    """The server does not have a model of this name, or not this version of it."""


class AccessDeniedError(ServerError):
    """The server requires a different token, header or certificate."""


# gRPC's messages for connections that cannot be made or that break. Their status is the same as that of a refusal.
_DISCONNECTIONS: Final = (
    "failed to connect",
    "connections to all backends failing",
    "DNS resolution failed",
    "empty address list",
    "Socket closed",
    "Connection reset",
    "Broken pipe",
    "keepalive",
)

# Every other status is a ServerError: a fault of the server (INTERNAL, UNKNOWN) or of its configuration
# (UNIMPLEMENTED), which no other request avoids.
_BY_STATUS: Final[Mapping[str, type[Florence2Error]]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": InvalidArgumentError,
        "UNAVAILABLE": UnavailableError,
        "DEADLINE_EXCEEDED": DeadlineExceededError,
        "CANCELLED": RequestCancelledError,
        "NOT_FOUND": ModelNotFoundError,
        "UNAUTHENTICATED": AccessDeniedError,
        "PERMISSION_DENIED": AccessDeniedError,
    }
)
# Errors whose message says more than their status: the status, and words of gRPC, Triton or this project's server.
_BY_MESSAGE: Final[Mapping[tuple[str, str], type[Florence2Error]]] = MappingProxyType(
    {
        ("UNAVAILABLE", "deadline exceeded"): DeadlineExceededError,  # Triton's Python models have no such status
        ("RESOURCE_EXHAUSTED", "larger than max"): MessageTooLargeError,
        ("RESOURCE_EXHAUSTED", "(max_steps)"): InvalidArgumentError,  # no retry of the same request avoids it
        ("UNAVAILABLE", "This protocol is restricted"): AccessDeniedError,
        ("NOT_FOUND", "unknown model"): ModelNotFoundError,
        ("NOT_FOUND", "has no available versions"): UnavailableError,  # while the server loads the model or shuts down
        # The server's /dev/shm is full.
        ("INTERNAL", "Failed to increase the shared memory pool size"): UnavailableError,
        # From older servers: if a request contains a string with a wrong length, Triton rejects its whole batch.
        # tritonclient never writes one, so it came from another client, and this request is valid.
        ("INVALID_ARGUMENT", "incomplete string data for inference input"): UnavailableError,
    }
)


def error_of_status(status: str, message: str, timeout: float | None = None) -> Florence2Error:
    """The error for a gRPC status.

    Args:
        status: the status's name, e.g. `"INVALID_ARGUMENT"`; empty if only the message is known.
        message: the server's message, or gRPC's.
        timeout: seconds that the request had; None if it had no limit.
    """
    kind = _BY_STATUS.get(status, ServerError)
    for (of_status, words), of_message in _BY_MESSAGE.items():
        if status in (of_status, "") and words in message:
            kind = of_message
    if kind is InvalidArgumentError:
        return InvalidArgumentError.of_message(message)
    if kind is DeadlineExceededError and timeout is not None:
        return DeadlineExceededError(f"no answer within {timeout:g} s: {message}")
    error = kind(f"{status}: {message}" if kind is ServerError and status else message)
    if isinstance(error, UnavailableError):
        error.is_refusal = not any(words in message for words in _DISCONNECTIONS)
    return error


@contextmanager
def located(url: str | None, request_id: str | None) -> Iterator[None]:
    """Add the url and the request id to an error of this package, unless it already has them."""
    try:
        yield
    except Florence2Error as error:
        error.url = error.url or url
        error.request_id = error.request_id or request_id
        raise


def wrong_type(argument: str, value: object, accepted: str) -> TypeError:
    """The error for an `argument` whose `value` does not have one of the `accepted` types."""
    return TypeError(f"{argument}: got {_shown(value)} of type {type(value).__name__}, expected {accepted}")


def require_type(argument: str, value: object, accepted: type) -> None:
    """Raise a TypeError unless the `value` of an `argument` has the `accepted` type."""
    if not isinstance(value, accepted):
        raise wrong_type(argument, value, f"a {accepted.__name__}")


def _shown(value: object) -> str:
    shown = repr(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}… ({len(shown)} characters)"
    return shown
