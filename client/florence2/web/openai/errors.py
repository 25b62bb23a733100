"""Errors in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from starlette.responses import Response

from florence2.plain_data import json_text
from florence2.web.problems import Problem
from florence2.web.rest.bodies import JSON_TYPE

_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: "invalid_value",
        HTTPStatus.UNAUTHORIZED: "invalid_api_key",
        HTTPStatus.FORBIDDEN: "forbidden",
        HTTPStatus.NOT_FOUND: "not_found",
        HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
        HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
        HTTPStatus.INTERNAL_SERVER_ERROR: "internal_error",
        HTTPStatus.BAD_GATEWAY: "bad_gateway",
        HTTPStatus.SERVICE_UNAVAILABLE: "unavailable",
        HTTPStatus.GATEWAY_TIMEOUT: "deadline_exceeded",
    }
)
# Errors after which a retry may succeed. OpenAI's clients retry after every 5xx status by default, which multiplies the
# load of a request that took too long.
_WORTH_A_RETRY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.SERVICE_UNAVAILABLE})


def error_status(problem: Problem) -> int:
    """The status of an error: the problem's, but 404 for a model, a task or an adapter that does not exist."""
    if problem.status == HTTPStatus.BAD_REQUEST and problem.field == "model":
        return HTTPStatus.NOT_FOUND
    return problem.status


def error_body(problem: Problem) -> dict[str, Any]:
    """The JSON value for an error, in a response and in a stream."""
    status = error_status(problem)
    is_callers = status < HTTPStatus.INTERNAL_SERVER_ERROR
    is_model = status == HTTPStatus.NOT_FOUND and problem.field == "model"
    error = {
        "message": problem.detail,
        "type": "invalid_request_error" if is_callers else "server_error",
        "param": problem.field,
        "code": "model_not_found" if is_model else _CODES.get(status, "error"),
    }
    return {"error": error}


def error_response(problem: Problem) -> Response:
    """The response for an error."""
    status = error_status(problem)
    retry = {} if status < HTTPStatus.INTERNAL_SERVER_ERROR else {"X-Should-Retry": _should_retry(status)}
    return Response(json_text(error_body(problem)), status, {**problem.headers, **retry}, JSON_TYPE)


def _should_retry(status: int) -> str:
    return "true" if status in _WORTH_A_RETRY else "false"
