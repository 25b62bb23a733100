"""What every route needs to know of a request."""

import re
import uuid
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_of(request: Request) -> str:
    """The id of a request in logs, responses and errors, and on the Triton server: pass it to the client's methods."""
    return scope_id(request.scope)


def scope_id(scope: Scope) -> str:
    """The id of a request, by its ASGI scope: the caller's `X-Request-ID` if it is valid, else a random one."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        state["request_id"] = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    request_id = state["request_id"]
    assert isinstance(request_id, str)
    return request_id
