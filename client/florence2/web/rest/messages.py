"""Reading a `TaskRequest` in proto3 JSON, with errors that name the field.

`json_format` truncates unknown numbers of enumerations and takes a list for a message; both are refused here.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError

from florence2 import v1
from florence2.errors import InvalidArgumentError

_MOST_CHARACTERS: Final = 200
_PLACE: Final = re.compile(r' at "?TaskRequest(?P<path>(?:\.[\w.\[\]]+)?)"?\.?$')


def parsed_request(name: str, value: Mapping[str, Any]) -> v1.TaskRequest:
    """The request in a JSON object.

    Args:
        name: the name of the field that holds it, with which the paths in errors begin.
        value: the object, with fields' names as in the protos or in camel case.

    Raises:
        InvalidArgumentError: it is no `TaskRequest`.
    """
    try:
        _check(value, v1.TaskRequest.DESCRIPTOR, name)
        return ParseDict(value, v1.TaskRequest())
    except ParseError as error:
        text = str(error).partition("\n")[0]
        place = _PLACE.search(text)
        reason = text[:_MOST_CHARACTERS]
        path = f"{name}{place['path']}" if place else name
        raise InvalidArgumentError.of_field(path, value, f"a TaskRequest in proto3 JSON ({reason})") from None
    except RecursionError:
        raise InvalidArgumentError.of_field(name, "a deeply nested object", "a TaskRequest in proto3 JSON") from None


def _check(value: Mapping[str, Any], message: Descriptor, path: str) -> None:
    for name, member in value.items():
        field = message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)
        if field is None:
            raise InvalidArgumentError.of_field(f"{path}.{name}", member, _known_fields(message, name))
        if field.is_repeated and isinstance(member, list):
            for index, element in enumerate(member):
                _check_value(element, field, f"{path}.{name}[{index}]")
        elif not field.is_repeated and member is not None:
            _check_value(member, field, f"{path}.{name}")


def _known_fields(message: Descriptor, name: str) -> str:
    nearest = get_close_matches(name, message.fields_by_name, 1)
    known = ", ".join(message.fields_by_name) or "none"
    return f"no field of this name; {f'did you mean {nearest[0]}?' if nearest else f'{message.name} has {known}'}"


def _check_value(value: Any, field: FieldDescriptor, path: str) -> None:
    if field.message_type is not None:
        if not isinstance(value, dict):
            raise InvalidArgumentError.of_field(path, value, "a JSON object")
        _check(value, field.message_type, path)
    elif field.enum_type is not None and not _is_known(value, field.enum_type):
        raise InvalidArgumentError.of_field(path, value, f"one of {', '.join(field.enum_type.values_by_name)}")


def _is_known(value: object, enumeration: EnumDescriptor) -> bool:
    if isinstance(value, str):
        return value in enumeration.values_by_name
    return isinstance(value, int) and not isinstance(value, bool) and value in enumeration.values_by_number
