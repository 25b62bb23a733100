"""JSON schemas of protobuf messages in proto3 JSON, from their descriptors and the protos' comments."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from florence2 import v1
from florence2.options import GENERATION_OPTIONS
from florence2.web.rest.fields import NUMBER_PATTERN

Schema: TypeAlias = dict[str, Any]

_INT32: Final = (-(2**31), 2**31 - 1)
# Proto3 JSON accepts numbers as text, and null for a field that is not set.
_INTEGER: Final = {
    "type": ["integer", "string", "null"],
    "pattern": r"^-?[0-9]{1,10}(?:\.0+)?$",
    "minimum": _INT32[0],
    "maximum": _INT32[1],
}
_NUMBER: Final = {"type": ["number", "string", "null"], "pattern": f"^{NUMBER_PATTERN}$"}
_SCALARS: Final[Mapping[int, Schema]] = {
    FieldDescriptor.TYPE_INT32: _INTEGER,
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_BOOL: {"type": ["boolean", "null"]},
    FieldDescriptor.TYPE_STRING: {"type": ["string", "null"]},
}


@cache
def comments() -> Mapping[str, str]:
    """The protos' comments by full name; `make protos` writes them."""
    texts: dict[str, str] = json.loads((files(__package__) / "comments.json").read_text())
    return texts


def message_schemas(root: Descriptor) -> dict[str, Schema]:
    """The schemas of a message and of all that it refers to, by full name."""
    schemas: dict[str, Schema] = {}
    waiting = [root]
    while waiting:
        message = waiting.pop()
        if message.full_name not in schemas:
            schemas[message.full_name] = _message_schema(message)
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return schemas


def _message_schema(message: Descriptor) -> Schema:
    properties = {field.name: _field_schema(field) for field in message.fields}
    return _described(message.full_name, {"type": "object", "properties": properties, "additionalProperties": False})


def _field_schema(field: FieldDescriptor) -> Schema:
    one = _value_schema(field)
    if field.is_repeated:
        one = {"type": ["array", "null"], "items": one}
    return _described(field.full_name, one)


def _value_schema(field: FieldDescriptor) -> Schema:
    if field.message_type is not None:
        reference = {"$ref": f"#/components/schemas/{field.message_type.full_name}"}
        return reference if field.is_repeated else {"anyOf": [reference, {"type": "null"}]}
    if field.enum_type is not None:
        return _enum_schema(field.enum_type)
    schema = dict(_SCALARS[field.type])
    if field.is_repeated:
        schema["type"] = [each for each in schema["type"] if each != "null"]
    if field.containing_type is v1.GenerationOptions.DESCRIPTOR:
        schema |= _limits(field.name)
    return schema


def _limits(option: str) -> Schema:
    declared = GENERATION_OPTIONS[option]
    limits = {"minimum": declared.least, "maximum": declared.most}
    return {name: limit for name, limit in limits.items() if isinstance(limit, int) and declared.type is not bool}


def _enum_schema(enumeration: EnumDescriptor) -> Schema:
    names = [value.name for value in enumeration.values]
    numbers = [value.number for value in enumeration.values]
    texts = [f"`{name}`: {comments().get(f'{enumeration.full_name}.{name}', '')}" for name in names]
    return {"enum": [*names, *numbers, None], "description": "\n\n".join(texts)}


def _described(name: str, schema: Schema) -> Schema:
    texts = [comments().get(name, ""), schema.get("description", "")]
    description = "\n\n".join(filter(None, texts))
    return {**schema, "description": description} if description else schema
