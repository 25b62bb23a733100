"""The playground at `/`: a page on which every task can be tried. Its files need no build step."""

import mimetypes
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from florence2.web.door import Door

STATIC: Final = Path(__file__).parent / "static"
"""The page's files."""

# Some systems map these extensions to types that browsers refuse for modules.
_MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png"}


class PageFiles(StaticFiles):
    """Files with an ETag that browsers revalidate on each visit, so that a page never mixes two versions."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 if the browser has it. See `StaticFiles.get_response`."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def routes(door: Door) -> list[BaseRoute]:  # noqa: ARG001 - the page uses only the other routes
    """The routes of the page: `/` and `/static/...`."""
    for extension, media_type in _MEDIA_TYPES.items():
        mimetypes.add_type(media_type, extension)
    files = PageFiles(directory=STATIC)

    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    return [Route("/", index), Mount("/static", files)]
