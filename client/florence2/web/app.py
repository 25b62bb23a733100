"""The ASGI app: all routes, and the middleware around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from florence2.web import health, openai, page, rest
from florence2.web.access_log import AccessLog
from florence2.web.config import WebConfig
from florence2.web.door import Door
from florence2.web.failures import Failures
from florence2.web.headers import OwnRequests, SecurityHeaders
from florence2.web.keys import ApiKeys, RequireKey
from florence2.web.leaving import CancelWhenLeft
from florence2.web.limits import BodyLimits, Concurrency
from florence2.web.models import Models
from florence2.web.problems import Problem


def make_app(config: WebConfig, models: Models) -> Starlette:
    """The ASGI app. It closes the models' clients when it shuts down.

    Raises:
        InvalidArgumentError: the file of API keys is empty, or has a line that is not a key.
        OSError: the file of API keys cannot be read.
    """

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
        middleware=_middleware(config),
        exception_handlers={HTTPException: _passed_on},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.door = door
    return app


def _middleware(config: WebConfig) -> list[Middleware]:
    """The middleware, outermost first. `Failures` turns the errors of everything inside it into responses."""
    keys = None if config.api_keys is None else ApiKeys(config.api_keys)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=config.allowed_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "traceparent", "tracestate"),
        expose_headers=("X-Request-ID", "Retry-After"),
    )
    return [
        Middleware(AccessLog),
        Middleware(SecurityHeaders),
        *([cors] if config.allowed_origins else []),
        Middleware(Failures, respond=_response),
        Middleware(OwnRequests, config=config),
        Middleware(RequireKey, keys=keys),
        Middleware(Concurrency, most=config.concurrency),
        Middleware(BodyLimits, config=config),
        Middleware(CancelWhenLeft),
    ]


def _response(path: str, problem: Problem) -> Response:
    is_openai = path.startswith(openai.PATHS)
    return openai.error_response(problem) if is_openai else problem.response()


async def _passed_on(request: Request, error: Exception) -> Response:  # noqa: ARG001
    # Passed on to `Failures`, instead of Starlette's own response in plain text.
    raise error
