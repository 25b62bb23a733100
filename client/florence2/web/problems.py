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
    ServerError,
    UnavailableError,
)

MEDIA_TYPE: Final = "application/problem+json"
_LOG: Final = logging.getLogger("florence2.web")
_RETRY_SECONDS: Final = 1
# Nobody reads it: the caller has closed the connection. It distinguishes such requests in the access log.
_CLIENT_CLOSED_REQUEST: Final = 499

_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (InvalidArgumentError, 400),
    (MessageTooLargeError, 413),
    (UnavailableError, 503),
    (DeadlineExceededError, 504),
    (RequestCancelledError, _CLIENT_CLOSED_REQUEST),
    (ServerError, 502),
    (Florence2Error, 502),
    (TypeError, 500),
)


@dataclass(frozen=True)
class Problem:
    """An error as callers see it."""

    status: int
    title: str
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
        members = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": self.request_id,
            "field": self.field,
            "value": self.value,
            "requirement": self.requirement,
        }
        return {name: value for name, value in members.items() if value is not None}

    def response(self) -> Response:
        """The response."""
        return JSONResponse(self.to_dict(), self.status, dict(self.headers), MEDIA_TYPE)


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """The problem for an error. Unexpected errors are logged, and their text is not shown to the caller."""
    if isinstance(error, HTTPException):
        return Problem(
            error.status_code, _title(error.status_code), error.detail, request_id, headers=error.headers or {}
        )
    known = request_id or getattr(error, "request_id", None)
    if not isinstance(error, Florence2Error):
        _LOG.error("request %s failed", known, exc_info=error)
        return Problem(500, _title(500), "an unexpected error, which is in the server's log", known)
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers = {"Retry-After": str(_RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    if isinstance(error, InvalidArgumentError) and error.field is not None:
        value = _shown(error.value)
        return Problem(status, _title(status), str(error), known, error.field, value, error.requirement, headers)
    return Problem(status, _title(status), str(error), known, headers=headers)


def _shown(value: object, most: int = 80) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _title(status: int) -> str:
    return "Client Closed Request" if status == _CLIENT_CLOSED_REQUEST else HTTPStatus(status).phrase
