"""Ends the work for callers that close their connection."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from florence2.errors import RequestCancelledError

_T = TypeVar("_T")


async def unless_left(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine, which is cancelled if the caller closes the connection.

    Args:
        request: a request whose body has been read.
        work: what the caller waits for.

    Raises:
        RequestCancelledError: the caller closed the connection.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RequestCancelledError("the caller closed the connection")
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
