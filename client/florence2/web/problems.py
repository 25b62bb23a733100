"""Errors as HTTP responses: `application/problem+json` (RFC 9457)."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from http import HTTPStatus
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from florence2.errors import (
    DeadlineExceededError,
    Florence2Error,
    InvalidArgumentError,
    MessageTooLargeError,
    RequestCancelledError,
    UnavailableError,
)

MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED_REQUEST: Final = 499
"""In the access log only, for callers that closed the connection."""

_LOG: Final = logging.getLogger("florence2.web")
_RETRY_SECONDS: Final = 1
_SHOWN_CHARACTERS: Final = 80
# Every other error of the package is a fault of the Triton server, or of the configuration of the connection to it.
_STATUSES: Final[tuple[tuple[type[Florence2Error], HTTPStatus], ...]] = (
    (InvalidArgumentError, HTTPStatus.BAD_REQUEST),
    (MessageTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (RequestCancelledError, HTTPStatus.SERVICE_UNAVAILABLE),  # the clients are being closed
    (DeadlineExceededError, HTTPStatus.GATEWAY_TIMEOUT),
    (Florence2Error, HTTPStatus.BAD_GATEWAY),
)
# The errors' own messages name servers, ports and headers, which callers need not know. They are in the log.
_DETAILS: Final[Mapping[HTTPStatus, str]] = {
    HTTPStatus.BAD_GATEWAY: "the Triton server failed; the cause is in the log under this request id",
    HTTPStatus.GATEWAY_TIMEOUT: "there was no complete answer within the request's timeout",
    HTTPStatus.INTERNAL_SERVER_ERROR: "an unexpected error; the cause is in the log under this request id",
}


@dataclass(frozen=True)
class Problem:
    """An error as callers see it."""

    status: int
    title: str
    """The status in words."""
    detail: str
    request_id: str | None = None
    field: str | None = None
    """The invalid field of the request, e.g. `caption`; None if the error is about something else."""
    value: str | None = None
    """The invalid value, shortened."""
    requirement: str | None = None
    """The accepted values."""
    headers: Mapping[str, str] = field_of(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The members of the problem's JSON object."""
        texts = {
            "title": self.title,
            "detail": self.detail,
            "request_id": self.request_id,
            "field": self.field,
            "value": self.value,
            "requirement": self.requirement,
        }
        given = {name: _encodable(text) for name, text in texts.items() if text is not None}
        return {"type": "about:blank", "status": self.status, **given}

    def response(self) -> Response:
        """The response."""
        return JSONResponse(self.to_dict(), self.status, dict(self.headers), MEDIA_TYPE)


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """The problem for an error. Unexpected errors are logged, and their text is not shown to the caller.

    Args:
        error: an error of this package, of Starlette (`HTTPException`), or any other, which is unexpected.
        request_id: the request's id; None: the error's, if it has one.
    """
    known = request_id or getattr(error, "request_id", None)
    if isinstance(error, HTTPException):
        return Problem(
            error.status_code, _title(error.status_code), error.detail, known, headers=dict(error.headers or {})
        )
    if not isinstance(error, Florence2Error):
        _LOG.error("request %s failed unexpectedly", known, exc_info=error)
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, error, known)
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    if isinstance(error, InvalidArgumentError) and error.field is not None:
        value = _shown(error.value)
        return Problem(status, status.phrase, str(error), known, error.field, value, error.requirement)
    return _problem(status, error, known)


def _problem(status: HTTPStatus, error: Exception, request_id: str | None) -> Problem:
    headers = {"Retry-After": str(_RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    detail = _DETAILS.get(status) or str(error)
    if isinstance(error, UnavailableError) and not error.is_refusal:
        detail = "no Triton server can be reached"
    return Problem(status, status.phrase, detail, request_id, headers=headers)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _encodable(text: str) -> str:
    """A text with lone surrogates escaped: a caller's JSON may contain them, and UTF-8 cannot."""
    return text.encode(errors="backslashreplace").decode()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
