"""Turns the fields of a body into a call of the client, and fields in the client's errors into those of the body."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypedDict, cast

from florence2 import v1
from florence2.client import AsyncClient
from florence2.client.filters import Filters
from florence2.errors import InvalidArgumentError
from florence2.options import FilterOptions, TaskOptions, set_options
from florence2.plans import check_plan
from florence2.web.door import Door
from florence2.web.rest.bodies import Body
from florence2.web.rest.messages import parsed_request
from florence2.web.rest.operations import IMAGE_FIELD, RUN, STREAM_FIELD, Operation

# Fields of messages that are other fields of a body.
_FIELD_NAMES: Final = {"phrases": "caption", "queries": "query", "text": "prompt", "timeout_seconds": "timeout"}


class Options(TypedDict):
    """The keywords of both `AsyncClient.run` and `stream`."""

    timeout: float
    priority: int | None
    request_id: str


@dataclass(frozen=True)
class Call:
    """What a request calls.

    Attributes:
        client: of the model.
        image: an image file.
        request: what is requested.
        options: keywords of the client's method.
        filters: the conditions for items, which apply to the request's results.
        is_stream: the value of the field `stream`; None if it is not given.
    """

    client: AsyncClient
    image: bytes
    request: v1.TaskRequest
    options: Options
    filters: Filters
    is_stream: bool | None


async def call_of(door: Door, operation: Operation, body: Body, request_id: str) -> Call:
    """The call for a body.

    Raises:
        InvalidArgumentError: a value is not accepted. The error names the field of the body.
    """
    values = body.values
    with named_as_fields(operation):
        request = _request(operation, values)
        check_plan(request)
        filters = Filters.of_options(_filter_options(values))
        filters.check(request)
        timeout = door.timeout(values.get("timeout", request.timeout_seconds or None))
        options = Options(timeout=timeout, priority=values.get("priority"), request_id=request_id)
        client = door.models.client(values.get("model"))
        return Call(client, await door.image(body.image), request, options, filters, values.get(STREAM_FIELD))


def _request(operation: Operation, values: Mapping[str, Any]) -> v1.TaskRequest:
    if operation.name == RUN:
        return parsed_request("request", values["request"])
    request = operation.request(values)
    set_options(request, _task_options(values))
    return request


def _task_options(values: Mapping[str, Any]) -> TaskOptions:
    names = TaskOptions.__optional_keys__
    return cast(TaskOptions, {name: value for name, value in values.items() if name in names})


def _filter_options(values: Mapping[str, Any]) -> FilterOptions:
    names = FilterOptions.__optional_keys__
    return cast(FilterOptions, {name: value for name, value in values.items() if name in names})


@contextmanager
def named_as_fields(operation: Operation) -> Iterator[None]:
    """Let errors of the client and the server name fields of the body, e.g. `region` or `num_beams`."""
    try:
        yield
    except InvalidArgumentError as error:
        raise _renamed(error, operation) from error


def _renamed(error: InvalidArgumentError, operation: Operation) -> InvalidArgumentError:
    path = error.field
    name = _field_of(path, operation) if path else None
    if path is None or name is None or name == path:
        return error
    renamed = InvalidArgumentError(str(error).replace(path, name, 1))
    renamed.field, renamed.value, renamed.requirement = name, error.value, error.requirement
    renamed.request_id, renamed.url = error.request_id, error.url
    return renamed


def _field_of(path: str, operation: Operation) -> str | None:
    """The field of the body for a path in a `TaskRequest`; None if the path is None."""
    parts = path.split(".")
    if operation.name == RUN:
        return path if parts[0] in (IMAGE_FIELD, *operation.fields) else f"request.{path}"
    for part in parts:
        name, bracket, index = part.partition("[")
        field = _FIELD_NAMES.get(name, name)
        if field in operation.fields or field == IMAGE_FIELD:
            return f"{field}{bracket}{index}"
    return None
