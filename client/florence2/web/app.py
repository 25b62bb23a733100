"""The app: the routes of all faces, and what is around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from florence2.errors import Florence2Error
from florence2.web import health, openai, page, rest
from florence2.web.config import WebConfig
from florence2.web.door import Door
from florence2.web.models import Models
from florence2.web.problems import problem_of
from florence2.web.requests import request_id_of


def make_app(config: WebConfig, models: Models) -> Starlette:
    """The ASGI app. It closes the models' clients when it shuts down."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:  # noqa: ARG001
        try:
            yield
        finally:
            await models.close()

    door = Door(config, models)
    faces = (health, rest, openai, page)
    app = Starlette(
        routes=[route for face in faces for route in face.routes(door)],
        exception_handlers={HTTPException: _failed, Florence2Error: _failed, Exception: _failed},
        lifespan=lifespan,
    )
    app.state.door = door
    return app


def _failed(request: Request, error: Exception) -> Response:
    problem = problem_of(error, request_id_of(request))
    if request.url.path.startswith(openai.PATHS):
        return openai.error_response(problem)
    return problem.response()
