"""Facts about a request, from its ASGI scope."""

import re
import uuid
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Scope

MCP_PATH: Final = "/mcp"
"""The path of `florence2 mcp --http`."""
API_PREFIXES: Final = ("/v1/", MCP_PATH)
"""The paths that keys and limits protect. All others are the page, the description of the API, and health."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_FACTS: Final = "florence2.web"


def request_id_of(request: Request) -> str:
    """The id of a request in logs, responses and errors; routes pass it to the client, and so to the Triton server."""
    return scope_id(request.scope)


def scope_id(scope: Scope) -> str:
    """The id of a request, by its ASGI scope: the caller's `X-Request-ID` if it is valid, else a random one."""
    facts = facts_of(scope)
    if "request_id" not in facts:
        given = Headers(scope=scope).get("x-request-id", "")
        facts["request_id"] = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    return str(facts["request_id"])


def facts_of(scope: Scope) -> dict[str, Any]:
    """What the middleware learns about a request, e.g. `request_id`, `key` (its name), `has_left`; may be changed."""
    facts: dict[str, Any] = scope.setdefault(_FACTS, {})
    return facts


def is_api(scope: Scope) -> bool:
    """Whether a request is for the API."""
    return scope["type"] == "http" and str(scope["path"]).startswith(API_PREFIXES)
