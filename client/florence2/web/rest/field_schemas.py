"""JSON schemas of the bodies of requests, as JSON and as forms."""

from typing import Any, Final

from florence2.web.rest.fields import NUMBER_PATTERN, REGION_SIDES, Field, Kind
from florence2.web.rest.message_schemas import Schema
from florence2.web.rest.operations import IMAGE_FIELD, Operation

_IMAGE: Final = (
    "A JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF file, decoded as a viewer shows it (EXIF orientation applied)"
)
_REGION_PATTERN: Final = rf"^{NUMBER_PATTERN}(?:,{NUMBER_PATTERN}){{{REGION_SIDES - 1}}}$"
_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_NOT_BLANK: Final = r"\S"
_REQUEST: Final = {"$ref": "#/components/schemas/florence2.v1.TaskRequest"}


# Examples of required fields. A page that has none for a form fills in every field's lowest or highest value.
_EXAMPLES: Final[dict[str, Any]] = {
    "caption": "a red circle",
    "query": "a red circle",
    "expression": "the red circle",
    "region": [50, 60, 230, 240],
    "prompt": "<CAPTION>",
    "request": {"object_detection": {}},
}
_EXAMPLE_FILE: Final = "street.jpg"
# One white pixel.
_EXAMPLE_IMAGE: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg=="


def json_body(operation: Operation) -> Schema:
    """The media type of a body in JSON."""
    examples = {name: _EXAMPLES[name] for name, field in operation.fields.items() if field.is_required}
    return {"schema": json_schema(operation), "example": {IMAGE_FIELD: _EXAMPLE_IMAGE, **examples}}


def json_schema(operation: Operation) -> Schema:
    """The schema of a body in JSON."""
    text = {"type": "string", "contentEncoding": "base64", "minLength": 1}
    image = {**text, "description": f"{_IMAGE}: its base64 text, or a base64 `data:` URI. URLs are not fetched."}
    return _object(operation, image, {name: _json_field(field) for name, field in operation.fields.items()})


def form_body(operation: Operation) -> Schema:
    """The media type of a form: its schema, and how its fields are encoded."""
    image = {"type": "string", "format": "binary", "description": f"{_IMAGE}."}
    fields = {name: _form_field(field) for name, field in operation.fields.items()}
    encoding: Schema = {IMAGE_FIELD: {"contentType": "image/*"}}
    arrays = [name for name, schema in fields.items() if "array" in _types(schema)]
    encoding |= {name: {"style": "form", "explode": True} for name in arrays}
    examples = {name: _form_example(field) for name, field in operation.fields.items() if field.is_required}
    example = {IMAGE_FIELD: _EXAMPLE_FILE, **examples}
    return {"schema": _object(operation, image, fields), "encoding": encoding, "example": example}


def _form_example(field: Field) -> Any:
    example = _EXAMPLES[field.name]
    match field.kind:
        case Kind.REGION:
            return ",".join(map(str, example))
        case Kind.PHRASES:
            return [example]
    return example


def _object(operation: Operation, image: Schema, fields: dict[str, Schema]) -> Schema:
    required = [name for name, field in operation.fields.items() if field.is_required]
    return {
        "type": "object",
        "properties": {IMAGE_FIELD: image, **fields},
        "required": [IMAGE_FIELD, *required],
        "additionalProperties": False,
    }


def _json_field(field: Field) -> Schema:
    match field.kind:
        case Kind.CHOICE:
            schema: Schema = {"enum": list(field.choices)}
        case Kind.PHRASES:
            schema = {"anyOf": [_text(field), {**_TEXTS, "items": _text(field), "minItems": 1}]}
        case Kind.REGION:
            schema = {
                "type": "array",
                "items": {"type": "number"},
                "minItems": REGION_SIDES,
                "maxItems": REGION_SIDES,
            }
        case Kind.LABELS:
            schema = dict(_TEXTS)
        case Kind.MESSAGE:
            return _described(field, {"allOf": [_REQUEST]})
        case _:
            schema = _scalar(field)
    return _described(field, schema if field.is_required else _nullable(schema))


def _form_field(field: Field) -> Schema:
    match field.kind:
        case Kind.CHOICE:
            schema: Schema = {"enum": list(field.choices)}
        case Kind.PHRASES:
            schema = {**_TEXTS, "items": _text(field), "minItems": 1}
        case Kind.LABELS:
            schema = {**_TEXTS, "minItems": 1}  # a form cannot say that an array is empty
        case Kind.REGION:
            schema = {"type": "string", "pattern": _REGION_PATTERN}
        case Kind.MESSAGE:
            schema = {"allOf": [_REQUEST]}
        case _:
            schema = _scalar(field)
    return _described(field, schema)


def _scalar(field: Field) -> Schema:
    match field.kind:
        case Kind.TEXT:
            return _text(field)
        case Kind.BOOLEAN:
            return {"type": "boolean"}
    return {"type": "integer" if field.kind is Kind.INTEGER else "number", **field.limits}


def _text(field: Field) -> Schema:
    return (
        {"type": "string", "pattern": _NOT_BLANK}
        if field.is_required or field.kind is Kind.PHRASES
        else {"type": "string"}
    )


def _nullable(schema: Schema) -> Schema:
    if "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def _described(field: Field, schema: Schema) -> Schema:
    default = {} if field.default is None else {"default": field.default}
    return {**schema, **default, "description": field.description}


def _types(schema: Schema) -> Any:
    return schema.get("type", ())
