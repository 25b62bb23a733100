"""`TaskRequest` and `TaskResponse` as they travel in tensors: protobuf binary or proto3 JSON."""

import codecs
import re
from enum import Enum
from typing import Any

import numpy as np
from florence2.errors import InvalidArgumentError
from florence2.v1 import StreamEvent, TaskRequest, TaskResponse
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

# The start of a JSON object (RFC 8259, section 2), which no TaskRequest in protobuf can have. As a tag, a brace would
# open a group, which proto3 does not have. Of the white space that may precede it, only a line break is a tag of
# TaskRequest: that of `caption`. A length follows it, which may equal the brace, and then a tag of Caption, whose first
# byte is not ASCII (see tasks.proto).
_JSON_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r]*\{(?![\x80-\xff])")
_MAX_REASON_CHARACTERS = 200

# The start of a JSON object in UTF-16 or UTF-32: a byte order mark, or a brace of several bytes.
_WIDE_JSON = (
    codecs.BOM_UTF16_LE,
    codecs.BOM_UTF16_BE,
    codecs.BOM_UTF32_BE,
    *("{".encode(encoding) for encoding in ("utf-16-le", "utf-16-be", "utf-32-be")),
)


class Encoding(Enum):
    """The encoding of a request, and so of its response."""

    BINARY = "binary"
    JSON = "json"


def encoding_of(requests: NDArray[np.object_]) -> Encoding:
    """The encoding of the first element of the REQUEST tensor, which may not be a TaskRequest at all."""
    first: Any = requests.flat[0] if requests.size else b""
    return Encoding.JSON if _JSON_START.match(first) else Encoding.BINARY


def parse_request(data: bytes) -> tuple[TaskRequest, Encoding]:
    """Parse an element of the REQUEST tensor.

    Raises:
        InvalidArgumentError: it is not a TaskRequest, in protobuf or in JSON.
    """
    if data.startswith(_WIDE_JSON):
        raise _refusal(data, "in protobuf, or as JSON in UTF-8", "it looks like UTF-16 or UTF-32")
    if _JSON_START.match(data):
        return _parse_json(data), Encoding.JSON
    try:
        request = TaskRequest.FromString(data)
        request.DiscardUnknownFields()  # steps and responses repeat parts of the request
        return request, Encoding.BINARY
    except DecodeError as error:
        raise _refusal(data, "in protobuf, or as an object in JSON", error) from None


def serialize(response: TaskResponse | StreamEvent, encoding: Encoding) -> bytes:
    """Serialize a response, or an event of a stream, into an element of the RESPONSE tensor.

    JSON includes empty lists and texts, zeros and false, so that callers need not know the defaults of proto3. Fields
    that were not set and know the difference, such as scores, are left out.
    """
    if encoding is Encoding.BINARY:
        return response.SerializeToString()
    text = json_format.MessageToJson(
        response, indent=None, ensure_ascii=False, always_print_fields_with_no_presence=True
    )
    return text.encode()


def _parse_json(data: bytes) -> TaskRequest:
    try:
        return json_format.Parse(data.decode("utf-8-sig"), TaskRequest())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise _refusal(data, "in JSON", error) from None


def _refusal(data: bytes, form: str, reason: object) -> InvalidArgumentError:
    said = " ".join(str(reason).split())[:_MAX_REASON_CHARACTERS]
    return InvalidArgumentError.of_field("REQUEST", data, f"a florence2.v1.TaskRequest {form} ({said})")
