"""`GET /v1/tasks` and `GET /v1/server`: the tasks that can be requested, and the servers that answer."""

from dataclasses import asdict
from functools import cache
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from florence2.plain_data import json_text
from florence2.transports import ServerInfo
from florence2.web.door import Door
from florence2.web.rest.bodies import JSON_TYPE
from florence2.web.rest.fields import Field
from florence2.web.rest.operations import OPERATIONS, RUN, Operation
from florence2.web.rest.results import type_name

_IN_PROCESS: Final = "in-process"
"""The `url` of the engine in this process."""


def routes(door: Door) -> list[BaseRoute]:
    """The routes of lists."""

    async def tasks(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        return Response(_tasks_text(), media_type=JSON_TYPE)

    async def server(request: Request) -> Response:  # noqa: ARG001
        found = await door.models.server_info()
        models = [{"name": name, "servers": list(map(_server, servers))} for name, servers in found.items()]
        return Response(json_text({"models": models}), media_type=JSON_TYPE)

    return [Route("/v1/tasks", tasks), Route("/v1/server", server)]


def _server(info: ServerInfo) -> dict[str, Any]:
    """What a server serves, without its address, which is behind this server."""
    data = asdict(info)
    return {"is_in_process": data.pop("url") == _IN_PROCESS, **data}


@cache
def _tasks_text() -> str:
    tasks = [operation for operation in OPERATIONS.values() if operation.name != RUN]
    options = {field.name: field for task in tasks for field in task.options}
    listed = {"tasks": list(map(_task, tasks)), "options": list(map(field_data, options.values()))}
    return json_text(listed)


def _task(operation: Operation) -> dict[str, Any]:
    return {
        "name": operation.name,
        "path": operation.path,
        "token": operation.token,
        "title": operation.title,
        "description": operation.description,
        "inputs": list(map(field_data, operation.inputs)),
        "options": [field.name for field in operation.options],
        "result": type_name(operation.result),
        "streams": True,
        "is_cascade": operation.is_cascade,
    }


def field_data(field: Field) -> dict[str, Any]:
    """What a program needs to know about a field to make a control for it."""
    return {
        "name": field.name,
        "type": field.kind.name.lower(),
        "required": field.is_required,
        "description": field.description,
        **({"choices": list(field.choices)} if field.choices else {}),
        **({} if field.default is None else {"default": field.default}),
        **field.limits,
    }
