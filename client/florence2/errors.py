"""What can go wrong, as exceptions.

Florence2Error
├── InvalidArgumentError      the request is wrong, and will be wrong again (also a ValueError)
├── UnavailableError          the server is full, starting or unreachable; safe to try again
├── DeadlineExceededError     the caller's timeout passed (also a TimeoutError)
├── RequestCancelledError     the caller cancelled the request
├── TruncatedAnswerError      the answer was cut at its length limit; what is whole is its `answer` (florence2.client)
├── MessageTooLargeError      client, server or what is between them does not let so large a message through
└── ServerError               a fault of the server, or an answer that no florence2 server gives
    ├── ModelNotFoundError    the server has no such model, or not that version of it
    └── AccessDeniedError     the server wants another token, header or certificate

An argument of the wrong type raises Python's own TypeError, which names the argument and what it accepts.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

_SHOWN_CHARACTERS = 80
# What `InvalidArgumentError.of_field` writes; a request of several batch elements says before it which one is meant.
_REFUSAL = re.compile(r"(?:row \d+: )?(?P<field>[^:]+): got (?P<value>.*), expected (?P<requirement>.+)", re.DOTALL)


class Florence2Error(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        request_id: names the request in the server's log; None if the error came up before there was a request.
        url: the server that the request went to, the last one if there were several; None if it went to none.
    """

    request_id: str | None = None
    url: str | None = None


class InvalidArgumentError(Florence2Error, ValueError):
    """The request is wrong. The message names the field, the value and the limit.

    Attributes:
        field: where the value stands, e.g. `"phrase_grounding.caption"`; None if the message names no field.
        value: what was given; if the server refused it, as the server's message shows it.
        requirement: what is accepted, with the limit, e.g. `"at most 447 tokens"`.
    """

    field: str | None = None
    value: object = None
    requirement: str | None = None

    @classmethod
    def of_message(cls, message: str) -> "InvalidArgumentError":
        """The error that a server describes."""
        error = cls(message)
        if found := _REFUSAL.fullmatch(message):
            error.field, error.value, error.requirement = found["field"], found["value"], found["requirement"]
        return error

    @classmethod
    def of_field(cls, field: str, value: object, requirement: str) -> "InvalidArgumentError":
        """The error for a `field` whose `value` breaks the `requirement`.

        Args:
            field: where the value stands, e.g. `"phrase_grounding.caption"`.
            value: what was given; long values are shortened in the message.
            requirement: what is asked for, with the limit, e.g. `"at most 447 tokens"`.
        """
        error = cls(f"{field}: got {_shown(value)}, expected {requirement}")
        error.field, error.value, error.requirement = field, value, requirement
        return error


class UnavailableError(Florence2Error):
    """The server is full, starting or unreachable. Nothing was answered; trying again is safe."""


class DeadlineExceededError(Florence2Error, TimeoutError):
    """The caller's timeout passed before the answer was whole."""


class RequestCancelledError(Florence2Error):
    """The caller cancelled the request."""


class MessageTooLargeError(Florence2Error):
    """Client, server or what is between them does not let so large a request or answer through."""


class ServerError(Florence2Error):
    """A fault of the server, or an answer that no florence2 server gives."""


class ModelNotFoundError(ServerError):
    """The server has no model of that name, or not that version of it."""


class AccessDeniedError(ServerError):
    """The server wants another token, header or certificate."""


@contextmanager
def located(url: str | None, request_id: str | None) -> Iterator[None]:
    """Say in an error of this package where it came up, unless it says so already."""
    try:
        yield
    except Florence2Error as error:
        error.url = error.url or url
        error.request_id = error.request_id or request_id
        raise


def wrong_type(argument: str, value: object, accepted: str) -> TypeError:
    """The error for an `argument` whose `value` has none of the `accepted` types."""
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
