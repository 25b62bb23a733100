"""REST: a path for each task, and the description of them.

`POST /v1/NAME` takes a form or JSON and answers with `Answer.to_dict()` without `url`, or with server-sent events.
`GET /v1/tasks` and `GET /v1/server` list tasks and servers, `GET /openapi.json` describes all paths, and `GET /docs` is
a page about them.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from florence2.web.door import Door
from florence2.web.rest import docs_page, listing, openapi
from florence2.web.rest.answering import answer
from florence2.web.rest.operations import OPERATIONS, Operation


def routes(door: Door) -> list[BaseRoute]:
    """The routes of the REST API."""
    return [
        *(_route(door, operation) for operation in OPERATIONS.values()),
        *listing.routes(door),
        *openapi.routes(door),
        *docs_page.routes(),
    ]


def _route(door: Door, operation: Operation) -> Route:
    async def respond(request: Request) -> Response:
        return await answer(door, operation, request)

    return Route(operation.path, respond, methods=["POST"], name=operation.method)
