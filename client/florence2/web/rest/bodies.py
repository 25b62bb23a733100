"""Reading a request's body: a form (`multipart/form-data`) or JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from florence2.errors import InvalidArgumentError
from florence2.web.rest.fields import Field, parsed_json
from florence2.web.rest.operations import IMAGE_FIELD, Operation

BODY_FIELD: Final = "body"
"""The field in errors about the body as a whole."""

FORM_TYPE: Final = "multipart/form-data"
JSON_TYPE: Final = "application/json"
_IMAGE_FILE: Final = "one file; with curl: -F image=@street.jpg"
_IMAGE_TEXT: Final = "the image as base64 text or a base64 data: URI"
# No request needs more; each part costs time before anything is known about it.
_MOST_FIELDS: Final = 1000
_MOST_FILES: Final = 8


class _FormParser(MultiPartParser):
    """Keeps files in memory: the body is limited, and a container may have no disk."""

    spool_max_size = 0  # no limit of its own


@dataclass(frozen=True)
class Body:
    """A request's body.

    Attributes:
        image: an image file, or its base64 text.
        values: the other fields that are given, with values of the fields' types.
    """

    image: bytes
    values: Mapping[str, Any]


async def read_body(request: Request, operation: Operation) -> Body:
    """Read the body of a request for an operation.

    Raises:
        InvalidArgumentError: the body cannot be read, or a field is unknown, missing, given twice or of the wrong type.
        HTTPException: 415, the body is neither a form nor JSON.
    """
    for name, value in request.query_params.items():
        raise InvalidArgumentError.of_field(name, value, "nothing in the URL's query: fields belong in the body")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == FORM_TYPE:
        return await _of_form(request, operation)
    if media_type == JSON_TYPE:
        return _of_json(await whole_body(request), operation)
    detail = f"Content-Type: got {media_type or 'none'!r}, expected {FORM_TYPE} or {JSON_TYPE}"
    raise HTTPException(415, detail, {"Accept-Post": f"{FORM_TYPE}, {JSON_TYPE}"})


async def whole_body(request: Request) -> bytes:
    """The body, which `request` does not keep: bodies are large, and requests wait long for their answers."""
    return b"".join([chunk async for chunk in request.stream()])


async def _of_form(request: Request, operation: Operation) -> Body:
    parser = _FormParser(
        request.headers, request.stream(), max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=1024 * 1024
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise InvalidArgumentError.of_field(BODY_FIELD, FORM_TYPE, f"a form ({error.message})") from None
    try:
        values = _checked(operation, _form_values(form, operation))
        return Body(await _file(form.getlist(IMAGE_FIELD)), values)
    finally:
        await form.close()


def _form_values(form: FormData, operation: Operation) -> dict[str, Any]:
    values = {}
    for name in form:
        if name == IMAGE_FIELD:
            continue
        given = form.getlist(name)
        field = _known(operation, name, given[0])
        # curl -F caption=@caption.txt sends a file.
        if files := [each for each in given if isinstance(each, UploadFile)]:
            raise InvalidArgumentError.of_field(name, f"the file {files[0].filename!r}", field.accepted)
        values[name] = field.of_form([each for each in given if isinstance(each, str)])
    return values


async def _file(parts: list[UploadFile | str]) -> bytes:
    if len(parts) != 1:
        raise InvalidArgumentError.of_field(IMAGE_FIELD, f"{len(parts)} files" if parts else None, _IMAGE_FILE)
    (part,) = parts
    if isinstance(part, str):
        raise InvalidArgumentError.of_field(IMAGE_FIELD, part, _IMAGE_FILE)
    if not (data := await part.read()):
        raise InvalidArgumentError.of_field(IMAGE_FIELD, f"the empty file {part.filename!r}", _IMAGE_FILE)
    return data


def _of_json(body: bytes, operation: Operation) -> Body:
    members = parsed_json(BODY_FIELD, body)
    if not isinstance(members, dict):
        raise InvalidArgumentError.of_field(BODY_FIELD, members, "a JSON object")
    image = members.pop(IMAGE_FIELD, None)
    values = {name: _known(operation, name, value).of_json(value) for name, value in members.items()}
    return Body(_text_image(image), _checked(operation, values))


def _text_image(value: object) -> bytes:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError.of_field(IMAGE_FIELD, value, _IMAGE_TEXT)
    return value.encode(errors="replace")  # text that is not base64 is rejected with the image


def _known(operation: Operation, name: str, value: object) -> Field:
    if name in operation.fields:
        return operation.fields[name]
    known = [IMAGE_FIELD, *operation.fields]
    nearest = get_close_matches(name, known, 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise InvalidArgumentError.of_field(name, value, f"a field of {operation.path} ({', '.join(known)}){hint}")


def _checked(operation: Operation, values: dict[str, Any]) -> dict[str, Any]:
    """The values that are given, after checking that none is missing."""
    for name, field in operation.fields.items():
        if field.is_required and name not in values:
            raise InvalidArgumentError.of_field(name, None, field.accepted)
    return {name: value for name, value in values.items() if value is not None}
