"""Answers calls of tools with a client."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from mcp_types import CallToolResult, ContentBlock, TextContent

from florence2.client import Answer, AsyncClient
from florence2.errors import Florence2Error, InvalidArgumentError, UnavailableError
from florence2.mcp.annotated import annotated
from florence2.mcp.arguments import DescribeRegion, ImageArguments, ItemArguments, read_arguments
from florence2.mcp.roots import Roots
from florence2.mcp.schemas import IS_TRUNCATED
from florence2.mcp.summaries import summary
from florence2.mcp.tools import ImageTool
from florence2.options import set_options
from florence2.results import Detections, Segmentation, TextRegions
from florence2.web.limits import read_image

Connect: TypeAlias = Callable[[], Awaitable[AsyncClient]]
"""Returns the client that sends the requests, always the same one; the first calls may wait until it exists."""

Progress: TypeAlias = Callable[[int, str], Awaitable[None]]
"""Reports the number of steps that are done, and the next one."""

STEPS: Final = 3
"""The steps that a call reports: reading the image, the answer, drawing."""

_LOG: Final = logging.getLogger("florence2.mcp")
_DRAWINGS: Final = 2


@dataclass(frozen=True)
class CallLimits:
    """Limits of tool calls.

    Attributes:
        image_bytes: the largest image file, in bytes.
        image_pixels: the largest image, width x height.
        concurrency: the maximum number of calls in flight; further ones are refused.
    """

    image_bytes: int = 32 * 1024 * 1024
    image_pixels: int = 100_000_000
    concurrency: int = 64


class Calls:
    """Answers calls of tools, in one event loop.

    Args:
        roots: the folders whose files a call may name.
        adapter: the adapter that answers; None: none.
        limits: of calls.
    """

    def __init__(self, roots: Roots, adapter: str | None, limits: CallLimits) -> None:
        self._roots = roots
        self._adapter = adapter
        self._limits = limits
        self._in_work = 0
        # A drawing takes a core, and the memory of a decoded image.
        self._drawings = asyncio.Semaphore(_DRAWINGS)

    async def result(
        self, tool: ImageTool, given: Mapping[str, Any], connect: Connect, progress: Progress
    ) -> CallToolResult:
        """The result of a call; an error is also a result, for the model to read. Cancelling it cancels the request."""
        request_id = uuid.uuid4().hex
        if self._in_work >= self._limits.concurrency:
            return _failed(
                UnavailableError(f"{self._in_work} calls are in flight, which is the maximum; try again later")
            )
        self._in_work += 1
        try:
            return await self._answered(tool, given, connect, progress, request_id)
        except InvalidArgumentError as error:
            return _failed(error)  # not logged, because it shows what the caller sent
        except Florence2Error as error:
            _LOG.warning("%s, request %s: %s", tool.name, request_id, error)
            return _failed(error)
        except Exception:  # noqa: BLE001 - the caller must not see the text of an unexpected error
            _LOG.exception("%s, request %s failed", tool.name, request_id)
            return _failed(Florence2Error(f"unexpected error of request {request_id}; the server's log has its cause"))
        finally:
            self._in_work -= 1

    async def _answered(
        self, tool: ImageTool, given: Mapping[str, Any], connect: Connect, progress: Progress, request_id: str
    ) -> CallToolResult:
        arguments = read_arguments(tool.arguments, given)
        request = arguments.request()
        set_options(request, {"adapter": self._adapter})
        await progress(0, "reading the image")
        image = await self._image(arguments)
        await progress(1, "waiting for the answer")
        client = await connect()
        answer = await client.run(image, request, request_id=request_id, **arguments.filters())
        await progress(2, "drawing the result")
        content: list[ContentBlock] = [TextContent(text=summary(answer))]
        if isinstance(arguments, ItemArguments) and arguments.annotate:
            content += await self._drawn(image, arguments, answer)
        await progress(STEPS, "done")
        structured = {**answer.result.to_dict(), IS_TRUNCATED: answer.is_truncated}
        return CallToolResult(content=content, structured_content=structured)

    async def _image(self, arguments: ImageArguments) -> bytes:
        """The image file of a call, whose size and pixels are within the limits."""
        path, text = arguments.path, arguments.image
        if path is None and text is None:
            raise InvalidArgumentError.of_field("path", path, "an image, in either `path` or `image`")
        if path is not None and text is not None:
            raise InvalidArgumentError.of_field("path", path, "no path, because `image` is given")
        return await asyncio.to_thread(self._read, path, text)

    def _read(self, path: str | None, text: str | None) -> bytes:
        if path is not None:
            return self._file(path)
        assert text is not None, "there is either a path or an image"
        most = self._limits.image_bytes
        if len(text) * 3 // 4 > most:  # base64 has four characters for three bytes
            raise InvalidArgumentError.of_field("image", f"{len(text):,} characters", f"at most {most:,} bytes")
        return read_image(text.encode(errors="replace"), self._limits.image_pixels)

    def _file(self, path: str) -> bytes:
        data = self._roots.read(path, self._limits.image_bytes)
        try:
            return read_image(data, self._limits.image_pixels)
        except InvalidArgumentError as error:
            # Its own message quotes the data, which may be a file that the caller must not see.
            raise InvalidArgumentError.of_field("path", path, f"that of {error.requirement}") from None

    async def _drawn(self, image: bytes, arguments: ItemArguments, answer: Answer) -> list[ContentBlock]:
        """The annotated image; a text instead if the image cannot be drawn on; nothing without items."""
        result = answer.result
        if isinstance(arguments, DescribeRegion):
            result = Detections([arguments.region], [""])  # type: ignore[arg-type]  # converted
        if not isinstance(result, Detections | Segmentation | TextRegions) or not len(result):
            return []
        try:
            async with self._drawings:
                return [await asyncio.to_thread(annotated, image, result)]
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise many kinds; the answer is still good
            _LOG.warning("cannot draw on the image of request %s: %s", answer.request_id, error)
            return [TextContent(text="The result could not be drawn on this image.")]


def _failed(error: Florence2Error) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=str(error))], is_error=True)
