"""`GET /openapi.json`: the description of the REST API, OpenAPI 3.1.

It is made from what the API itself uses: the table of operations, the protos' descriptors and comments, and the JSON
schema of results.
"""

from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from florence2.plain_data import json_text
from florence2.web.door import Door
from florence2.web.problems import MEDIA_TYPE as PROBLEM_TYPE
from florence2.web.rest.answering import EVENT_STREAM
from florence2.web.rest.bodies import FORM_TYPE, JSON_TYPE
from florence2.web.rest.event_schemas import EVENT_SCHEMA
from florence2.web.rest.field_schemas import form_body, json_body
from florence2.web.rest.fields import Field, Kind
from florence2.web.rest.message_schemas import Schema, message_schemas
from florence2.web.rest.messages import ROOT
from florence2.web.rest.operations import OPERATIONS, RUN, Operation
from florence2.web.rest.other_schemas import OTHER_SCHEMAS
from florence2.web.rest.results import answer_schema, result_schemas

DISTRIBUTION: Final = "florence2-triton"
_ABOUT: Final = (
    "Florence-2, served on NVIDIA Triton. Send an image to the path of a task, as a form or as JSON. Coordinates are "
    "pixels of the image as displayed: x to the right, y downward."
)
_PROBLEMS: Final = {
    400: "The request is invalid: `field` is the field, `value` what was given, `requirement` what is accepted.",
    401: "An API key is missing or unknown.",
    403: "A script of another website sent the request.",
    408: "The body did not arrive in time.",
    413: "The body, or the request to the model's server, is too large.",
    415: "The body is neither a form nor JSON.",
    421: "The header `Host` names another host.",
    500: "An unexpected error; the cause is in the log.",
    502: "A fault of the model's server, or of the settings of the connection to it.",
    503: "The server is full, starting or unreachable. Retry after the number of seconds in `Retry-After`.",
    504: "There was no answer within `timeout` seconds.",
}
_OF_LISTS: Final = (401, 403, 421, 500, 502, 503, 504)
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def routes(door: Door) -> list[BaseRoute]:
    """The route of the description."""
    limits = Limits(door.models.names, door.config.timeout, needs_keys=door.config.api_keys is not None)

    async def openapi(request: Request) -> Response:
        return Response(_text(limits, request.scope.get("root_path", "")), media_type=JSON_TYPE)

    return [Route("/openapi.json", openapi)]


@dataclass(frozen=True)
class Limits:
    """What the description says about this web server.

    Attributes:
        models: the names of the models.
        timeout: the longest timeout of a request, in seconds.
        needs_keys: whether requests need an API key.
    """

    models: tuple[str, ...]
    timeout: float
    needs_keys: bool = False

    def of_field(self, field: Field) -> Field:
        """A field with these limits."""
        match field.name:
            case "model":
                return replace(field, kind=Kind.CHOICE, choices=self.models)
            case "timeout":
                return replace(field, most=self.timeout)
        return field


@cache
def _text(limits: Limits, root_path: str) -> str:
    return json_text(description(limits, root_path))


def description(limits: Limits, root_path: str = "") -> dict[str, Any]:
    """The description.

    Args:
        limits: of this web server.
        root_path: the path of a proxy in front, before the paths of this API.
    """
    operations = [
        replace(operation, options=tuple(map(limits.of_field, operation.options))) for operation in OPERATIONS.values()
    ]
    messages, results = message_schemas(ROOT), result_schemas()
    schemes = {"securitySchemes": _SECURITY} if limits.needs_keys else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": DISTRIBUTION, "version": version(DISTRIBUTION), "description": _ABOUT},
        "servers": [{"url": root_path or "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items()],
        **({"security": [{name: []} for name in _SECURITY]} if limits.needs_keys else {}),
        "paths": {**{operation.path: {"post": _operation(operation)} for operation in operations}, **_lists()},
        "components": {"schemas": {**results, **messages, **OTHER_SCHEMAS, "Event": EVENT_SCHEMA}, **schemes},
    }


_TAGS: Final = {
    "tasks": "One task about one image.",
    "cascades": "Several steps about one image, in one request.",
    "lists": "The tasks that can be requested, and the servers that answer.",
}


def _operation(operation: Operation) -> Schema:
    is_plan = operation.is_cascade or operation.name == RUN
    content = {FORM_TYPE: form_body(operation), JSON_TYPE: json_body(operation)}
    answered = {
        "description": "The answer. `finish_reason` is `length` if it was truncated at `max_new_tokens`.",
        "content": {
            JSON_TYPE: {"schema": answer_schema(operation.result)},
            EVENT_STREAM: {"schema": {"$ref": "#/components/schemas/Event"}},
        },
    }
    return {
        "operationId": operation.method,
        "tags": ["cascades" if is_plan else "tasks"],
        "summary": operation.title,
        "description": " ".join(filter(None, [operation.description, operation.token and f"(`{operation.token}`)"])),
        "requestBody": {"required": True, "content": content},
        "responses": {"200": answered, **_problems(*_PROBLEMS)},
    }


def _problems(*statuses: int) -> Schema:
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(status): {"description": _PROBLEMS[status], "content": content} for status in statuses}


def _lists() -> Schema:
    return {
        "/v1/tasks": {"get": _list("list_tasks", "Tasks", "The tasks, with their fields.", "Tasks")},
        "/v1/server": {
            "get": _list("list_servers", "Server", "The models, their servers, checkpoints and adapters.", "Models")
        },
    }


def _list(name: str, title: str, text: str, component: str) -> Schema:
    schema = {"$ref": f"#/components/schemas/{component}"}
    return {
        "operationId": name,
        "tags": ["lists"],
        "summary": title,
        "description": text,
        "responses": {
            "200": {"description": text, "content": {JSON_TYPE: {"schema": schema}}},
            **_problems(*_OF_LISTS),
        },
    }
