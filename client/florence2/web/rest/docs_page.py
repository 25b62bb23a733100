"""`GET /docs`: the API's description for people, by Swagger UI, whose files are served from here."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

# Without a script or a style of its own, which the content security policy would refuse.
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>florence2-triton: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The description itself is <a href="openapi.json">openapi.json</a>.</noscript>
</body>
</html>
"""
# Swagger UI would fill in a form with the limits of every field, and send all fields, also those left empty.
_START: Final = """function withoutEmptyFields(request) {
  if (request.body instanceof FormData) {
    for (const [name, value] of [...request.body]) if (value === "") request.body.delete(name);
  }
  return request;
}

async function start() {
  const response = await fetch("openapi.json");
  const spec = await response.json();
  for (const { post } of Object.values(spec.paths)) {
    const form = post?.requestBody.content["multipart/form-data"];
    for (const [name, field] of Object.entries(form?.schema.properties ?? {})) {
      if (name in form.example) field.example = form.example[name];
      else if (!("default" in field)) field.example = field.type === "array" ? [] : "";
    }
  }
  SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor: withoutEmptyFields,
  });
}
start();
"""
_CSS, _JAVASCRIPT = "text/css", "text/javascript"
_ASSETS: Final = {"swagger-ui.css": _CSS, "swagger-ui-bundle.js": _JAVASCRIPT}
# The files of an installed package change only with it.
_CACHED: Final = {"Cache-Control": "max-age=3600"}


def routes() -> list[BaseRoute]:
    """The routes of the page and its files."""

    async def page(request: Request) -> Response:  # noqa: ARG001 - Starlette passes it
        return HTMLResponse(_PAGE)

    async def start(request: Request) -> Response:  # noqa: ARG001
        return Response(_START, media_type=_JAVASCRIPT, headers=_CACHED)

    return [
        Route("/docs", page),
        Route("/docs/start.js", start),
        *(_asset(name, media_type) for name, media_type in _ASSETS.items()),
    ]


def _asset(name: str, media_type: str) -> Route:
    async def asset(request: Request) -> Response:  # noqa: ARG001
        return Response((_folder() / name).read_bytes(), media_type=media_type, headers=_CACHED)

    return Route(f"/docs/{name}", asset)


def _folder() -> Path:
    """The files of Swagger UI. The package itself is not imported: it is for other frameworks."""
    spec = find_spec("swagger_ui")
    assert spec is not None, "the extra [web] requires swagger-ui-py"
    assert spec.submodule_search_locations, "it is a package"
    return Path(spec.submodule_search_locations[0]) / "static"
