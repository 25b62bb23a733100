"""The API of OpenAI's chat completions."""

from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute

from florence2.web.door import Door
from florence2.web.problems import Problem

PATHS: Final = ("/v1/chat/", "/v1/models")
"""How the paths of this face begin. Its errors, also those of limits and keys, are responses of `error_response`."""


def routes(door: Door) -> list[BaseRoute]:  # noqa: ARG001
    """The routes of this face."""
    return []


def error_response(problem: Problem) -> Response:
    """The response for an error, in OpenAI's form."""
    return problem.response()
