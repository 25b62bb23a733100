"""The playground: a page for browsers."""

from starlette.routing import BaseRoute

from florence2.web.door import Door


def routes(door: Door) -> list[BaseRoute]:  # noqa: ARG001
    """The routes of this face."""
    return []
