"""The schemas of structured results: those of `to_dict()`, with whether the answer was truncated."""

import copy
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final

_PREFIX: Final = "#/$defs/"
IS_TRUNCATED: Final = "is_truncated"
"""The property of structured results that `to_dict()` of a result does not have."""


def definitions() -> dict[str, Any]:
    """The schemas of all results by name, as docs/results.md shows them."""
    schema = json.loads((files("florence2") / "results.schema.json").read_text())
    found = schema["$defs"]
    assert isinstance(found, dict)
    return found


def output_schema(names: tuple[str, ...], known: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a tool's structured result.

    Args:
        names: the `type` of the results that the tool can have.
        known: all schemas by name.

    Returns:
        A schema whose root has the type object, which MCP requires.
    """
    results = [_with_truncation(known[name]) for name in names]
    used: dict[str, Any] = {}
    for result in results:
        used |= {name: known[name] for name in _references(result, known)}
    root = results[0] if len(results) == 1 else {"type": "object", "anyOf": results}
    return {**root, "$defs": used}


def _with_truncation(schema: Mapping[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(dict(schema))
    changed["properties"][IS_TRUNCATED] = {
        "type": "boolean",
        "description": "Whether the answer was cut at its length limit, so that something may be missing.",
    }
    changed["required"] = [*changed["required"], IS_TRUNCATED]
    return changed


def _references(schema: Any, known: Mapping[str, Any]) -> Iterator[str]:
    """The names of all schemas that a schema refers to, directly or not."""
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each, known)
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref":
                name = value.removeprefix(_PREFIX)
                yield name
                yield from _references(known[name], known)
            else:
                yield from _references(value, known)
