"""`TaskRequest` and `TaskResponse` as they travel in tensors: protobuf binary, or proto3 JSON for who has none."""

from enum import Enum

from florence2.errors import InvalidArgumentError
from florence2.v1 import TaskRequest, TaskResponse
from google.protobuf import json_format
from google.protobuf.message import DecodeError

# No protobuf message begins with this byte: it would open a group, which proto3 does not have.
_JSON_START = b"{"


class Encoding(Enum):
    """How a request is written, and so how its response is."""

    BINARY = "binary"
    JSON = "json"


def parse_request(data: bytes) -> tuple[TaskRequest, Encoding]:
    """The request in a REQUEST tensor's element.

    Raises:
        InvalidArgumentError: neither protobuf nor JSON of a TaskRequest.
    """
    if data.startswith(_JSON_START):
        return _parse_json(data), Encoding.JSON
    try:
        return TaskRequest.FromString(data), Encoding.BINARY
    except DecodeError as error:
        raise InvalidArgumentError.of_field("REQUEST", data, f"a florence2.v1.TaskRequest ({error})") from None


def serialize_response(response: TaskResponse, encoding: Encoding) -> bytes:
    """The element of the RESPONSE tensor."""
    if encoding is Encoding.BINARY:
        return response.SerializeToString()
    return json_format.MessageToJson(response, indent=None, ensure_ascii=False).encode()


def _parse_json(data: bytes) -> TaskRequest:
    try:
        return json_format.Parse(data.decode(), TaskRequest())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidArgumentError.of_field("REQUEST", data, f"JSON of a florence2.v1.TaskRequest ({error})") from None
