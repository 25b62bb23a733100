"""The JSON schemas of answers: those of `florence2/results.schema.json`, as components of OpenAPI."""

import json
import re
from importlib.resources import files
from typing import Any, Final

from florence2.web.rest.message_schemas import Schema

_WORD: Final = re.compile(r"(?<!^)(?=[A-Z])")


def type_name(result: str) -> str:
    """The `type` of a result's data, from the name of its class: `"text_regions"` of `"TextRegions"`."""
    return _WORD.sub("_", result).lower()


def result_schemas() -> dict[str, Schema]:
    """The schemas by component, such as `TextRegions` and `Answer`."""
    text = (files("florence2") / "results.schema.json").read_text()
    definitions = json.loads(text)["$defs"]
    answer = definitions["answer"]
    del answer["properties"]["url"]  # `answer_data` leaves it out
    answer["required"].remove("url")
    return {_component(name): _with_references(schema) for name, schema in definitions.items()}


def answer_schema(result: str) -> Schema:
    """The schema of an answer with a result of a class."""
    reference = {"$ref": f"#/components/schemas/{result}"}
    answer = {"$ref": "#/components/schemas/Answer"}
    return {"allOf": [answer, {"type": "object", "properties": {"result": reference}}]}


def _component(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _with_references(schema: Any) -> Any:
    """A schema that refers to components instead of `$defs`."""
    if isinstance(schema, list):
        return [_with_references(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _reference(value) if key == "$ref" else _with_references(value) for key, value in schema.items()}


def _reference(path: str) -> str:
    name, *rest = path.removeprefix("#/$defs/").split("/")
    return "/".join(["#/components/schemas", _component(name), *rest])
