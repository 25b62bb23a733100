"""JSON schemas of problems and lists."""

from typing import Final

from florence2.web.rest.fields import Kind
from florence2.web.rest.message_schemas import Schema

_TEXT: Final[Schema] = {"type": "string"}
_FLAG: Final[Schema] = {"type": "boolean"}
_CHOICE: Final[Schema] = {"type": ["string", "boolean"]}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required)}


def _array(component: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{component}"}}


_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}

OTHER_SCHEMAS: Final[dict[str, Schema]] = {
    "Problem": {
        **_object(
            {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
            {
                "request_id": {"type": "string", "description": "Identifies the request in the logs."},
                "field": {"type": "string", "description": "The field of the request that is wrong."},
                "value": {"type": "string", "description": "What was given, shortened."},
                "requirement": {"type": "string", "description": "What is accepted."},
            },
        ),
        "description": "An error (RFC 9457).",
    },
    "Field": _object(
        {
            "name": _TEXT,
            "type": {"enum": [kind.name.lower() for kind in Kind]},
            "required": _FLAG,
            "description": _TEXT,
        },
        {
            "choices": {"type": "array", "items": _CHOICE},
            "default": _CHOICE,
            "minimum": {"type": "number"},
            "exclusiveMinimum": {"type": "number"},
            "maximum": {"type": "number"},
        },
    ),
    "Task": _object(
        {
            "name": _TEXT,
            "path": _TEXT,
            "token": {"type": "string", "description": "The official token; empty for cascades and free prompts."},
            "title": _TEXT,
            "description": _TEXT,
            "inputs": _array("Field"),
            "options": {**_TEXTS, "description": "The names of the options that the task has."},
            "result": {"type": "string", "description": "The `type` of the result."},
            "streams": _FLAG,
            "is_cascade": _FLAG,
        }
    ),
    "Tasks": _object({"tasks": _array("Task"), "options": _array("Field")}),
    "Engine": _object(
        {
            "name": _TEXT,
            "state": {"enum": ["running", "starting", "failed", "unreachable"]},
            "checkpoint": _TEXT,
            "revision": _TEXT,
            "layout": _TEXT,
            "device": _TEXT,
            "dtype": _TEXT,
            "slots": {"type": "integer"},
            "adapters": _TEXTS,
        }
    ),
    "Server": _object({"is_in_process": _FLAG, "version": _TEXT, "model": _TEXT, "engines": _array("Engine")}),
    "Model": _object({"name": _TEXT, "servers": _array("Server")}),
    "Models": _object({"models": _array("Model")}),
}
"""By component."""
