"""The API of OpenAI's chat completions: `POST /v1/chat/completions` and `GET /v1/models`.

docs/openai.md says which task answers, and what each field of a request does.
"""

from typing import Final

from starlette.routing import BaseRoute, Route

from florence2.web.door import Door
from florence2.web.openai.chat import ChatCompletions
from florence2.web.openai.errors import error_response
from florence2.web.openai.served_models import ServedModels

__all__ = ["PATHS", "error_response", "routes"]

PATHS: Final = ("/v1/chat/", "/v1/models")
"""The prefixes of this API's paths. Their errors, including those of limits and keys, have OpenAI's form."""


def routes(door: Door) -> list[BaseRoute]:
    """The routes of the OpenAI-compatible API."""
    served = ServedModels(door.models)
    chat = ChatCompletions(door, served)
    return [
        Route("/v1/chat/completions", chat.create, methods=["POST"]),
        Route("/v1/models", served.list),
        Route("/v1/models/{id:path}", served.retrieve),
    ]
