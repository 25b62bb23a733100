"""`GET /openapi.json`: the description of the REST API, OpenAPI 3.1.

It is made from what the API itself uses: the table of operations, the protos' descriptors and comments, and the JSON
schema of results.
"""

from functools import cache
from importlib.metadata import version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from florence2 import v1
from florence2.plain_data import json_text
from florence2.web.door import Door
from florence2.web.problems import MEDIA_TYPE as PROBLEM_TYPE
from florence2.web.rest.answering import EVENT_STREAM
from florence2.web.rest.bodies import FORM_TYPE, JSON_TYPE
from florence2.web.rest.events import EVENTS
from florence2.web.rest.field_schemas import form_schema, json_schema
from florence2.web.rest.message_schemas import Schema, message_schemas
from florence2.web.rest.operations import OPERATIONS, RUN, Operation
from florence2.web.rest.other_schemas import OTHER_SCHEMAS
from florence2.web.rest.results import answer_schema, result_schemas

DISTRIBUTION: Final = "florence2-triton"
_ABOUT: Final = (
    "Florence-2, served on NVIDIA Triton. Send an image to the path of a task, as a form or as JSON. Coordinates are "
    "pixels of the image as displayed: x to the right, y downward."
)
_PROBLEMS: Final = {
    400: "The request is invalid: `field` names the field, `value` what was given, `requirement` what is accepted.",
    401: "An API key is missing or unknown.",
    408: "The body took too long to arrive.",
    413: "The body, or the request to the model's server, is too large.",
    415: "The body is neither a form nor JSON.",
    500: "An unexpected error, which is in the log.",
    502: "A fault of the model's server, or of the settings of the connection to it.",
    503: "The server is full, starting or unreachable. Retry after the seconds that `Retry-After` says.",
    504: "There was no answer within `timeout` seconds.",
}
_OF_LISTS: Final = (401, 500, 502, 503, 504)
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def routes(door: Door) -> list[BaseRoute]:
    """The route of the description."""

    async def openapi(request: Request) -> Response:
        needs_keys = door.config.api_keys is not None
        return Response(_text(request.scope.get("root_path", ""), needs_keys), media_type=JSON_TYPE)

    return [Route("/openapi.json", openapi)]


@cache
def _text(root_path: str, needs_keys: bool) -> str:
    return json_text(description(root_path, needs_keys=needs_keys))


def description(root_path: str = "", *, needs_keys: bool = False) -> dict[str, Any]:
    """The description.

    Args:
        root_path: the path of a proxy in front, before the paths of this API.
        needs_keys: whether requests need an API key.
    """
    operations = OPERATIONS.values()
    messages, results = message_schemas(v1.TaskRequest.DESCRIPTOR), result_schemas()
    schemes = {"securitySchemes": _SECURITY} if needs_keys else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": DISTRIBUTION, "version": version(DISTRIBUTION), "description": _ABOUT},
        "servers": [{"url": root_path or "/"}],
        "tags": [{"name": tag, "description": text} for tag, text in _TAGS.items()],
        **({"security": [{name: []} for name in _SECURITY]} if needs_keys else {}),
        "paths": {**{operation.path: {"post": _operation(operation)} for operation in operations}, **_lists()},
        "components": {"schemas": {**results, **messages, **OTHER_SCHEMAS}, **schemes},
    }


_TAGS: Final = {
    "tasks": "One task about one image.",
    "cascades": "Several steps about one image, in one request.",
    "lists": "What can be requested, and who answers.",
}


def _operation(operation: Operation) -> Schema:
    is_plan = operation.is_cascade or operation.name == RUN
    content = {FORM_TYPE: form_schema(operation), JSON_TYPE: {"schema": json_schema(operation)}}
    answered = {
        "description": "The answer. `finish_reason` is `length` if it was truncated at `max_new_tokens`.",
        "content": {
            JSON_TYPE: {"schema": answer_schema(operation.result)},
            EVENT_STREAM: {"schema": {"type": "string", "description": _events()}},
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


def _events() -> str:
    return "\n\n".join(f"`event: {name}`: {text}" for name, text in EVENTS.items())


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
