"""Reading a `TaskRequest` in proto3 JSON, with errors that name the field.

`json_format` truncates unknown numbers of enumerations and takes a list for a message; both are refused here.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message_factory import GetMessageClass

from florence2 import v1
from florence2.errors import InvalidArgumentError

# The stubs of messages name the class of descriptors in C, which is not public.
ROOT: Final = cast(Descriptor, v1.TaskRequest.DESCRIPTOR)
_MOST_CHARACTERS: Final = 200
_TYPES: Final[Mapping[int, str]] = {
    FieldDescriptor.TYPE_INT32: "an integer of 32 bits",
    FieldDescriptor.TYPE_FLOAT: "a number of 32 bits",
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_STRING: "text",
}


def parsed_request(name: str, value: dict[str, Any]) -> v1.TaskRequest:
    """The request in a JSON object.

    Args:
        name: the name of the field that holds it, with which the paths in errors begin.
        value: the object, with fields' names as in the protos or in camel case.

    Raises:
        InvalidArgumentError: it is not a `TaskRequest`.
    """
    try:
        _check(value, ROOT, name)
        return ParseDict(value, v1.TaskRequest())
    except ParseError as error:
        raise InvalidArgumentError.of_field(name, value, f"a TaskRequest in proto3 JSON ({_reason(error)})") from None
    except RecursionError:
        raise InvalidArgumentError.of_field(name, "a deeply nested object", "a TaskRequest in proto3 JSON") from None


def _reason(error: ParseError) -> str:
    return str(error).partition("\n")[0][:_MOST_CHARACTERS].rstrip(".")


def _check(value: Mapping[str, Any], message: Descriptor, path: str) -> None:
    chosen: dict[str, str] = {}  # the given field of each oneof
    for name, member in value.items():
        field = message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)
        if field is None:
            raise InvalidArgumentError.of_field(f"{path}.{name}", member, _known_fields(message, name))
        if member is None:
            continue
        _check_field(member, field, f"{path}.{name}")
        if field.containing_oneof is not None:
            other = chosen.setdefault(field.containing_oneof.name, name)
            if other != name:
                raise InvalidArgumentError.of_field(f"{path}.{name}", member, f"nothing, because {other} is given")


def _check_field(value: Any, field: FieldDescriptor, path: str) -> None:
    if not field.is_repeated:
        _check_value(value, field, path)
    elif not isinstance(value, list):
        raise InvalidArgumentError.of_field(path, value, "an array")
    else:
        for index, element in enumerate(value):
            _check_value(element, field, f"{path}[{index}]")


def _known_fields(message: Descriptor, name: str) -> str:
    nearest = get_close_matches(name, message.fields_by_name, 1)
    known = ", ".join(message.fields_by_name) or "none"
    return f"no field of this name; {f'did you mean {nearest[0]}?' if nearest else f'{message.name} has {known}'}"


def _check_value(value: Any, field: FieldDescriptor, path: str) -> None:
    if field.message_type is not None:
        if not isinstance(value, dict):
            raise InvalidArgumentError.of_field(path, value, "a JSON object")
        _check(value, field.message_type, path)
    elif field.enum_type is not None:
        if not _is_known(value, field.enum_type):
            raise InvalidArgumentError.of_field(path, value, f"one of {', '.join(field.enum_type.values_by_name)}")
    else:
        _check_scalar(value, field, path)


def _check_scalar(value: Any, field: FieldDescriptor, path: str) -> None:
    assert field.containing_type is not None, "a field of a message"
    member = {field.name: [value] if field.is_repeated else value}
    try:
        ParseDict(member, GetMessageClass(field.containing_type)())
    except ParseError as error:
        raise InvalidArgumentError.of_field(path, value, f"{_TYPES[field.type]} ({_reason(error)})") from None


def _is_known(value: object, enumeration: EnumDescriptor) -> bool:
    if isinstance(value, str):
        return value in enumeration.values_by_name
    # Not `values_by_number`, which truncates what it looks up to 32 bits.
    numbers = [each.number for each in enumeration.values]
    return isinstance(value, int) and not isinstance(value, bool) and value in numbers
