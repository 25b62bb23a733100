"""Limits, checked before any costly work: bodies (size, time, encoding), requests in flight, pixels of images."""

import asyncio
import io
import re
import warnings
from typing import Final

import PIL.Image
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.base64_text import image_file
from florence2.errors import InvalidArgumentError, MessageTooLargeError, UnavailableError
from florence2.web.config import WebConfig
from florence2.web.requests import is_api

_URL: Final = re.compile(rb"\s*(?:https?|ftp|file)://", re.IGNORECASE)
_QUOTED_BYTES: Final = 60
# The brands of HEIC files. Servers check their pixels; the package that reads them need not be installed here.
_HEIC: Final = re.compile(rb"....ftyp(?:heic|heix|hevc|heim|heis|mif1|msf1)", re.DOTALL)
_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_CLOSE: Final = {"Connection": "close"}


class Concurrency:
    """Middleware that refuses requests while the maximum number is in flight, from the first byte of the request to the
    last of the response. Only POST requests to the API count: others cost next to nothing.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Raises:
            UnavailableError: too many requests are in flight.
        """
        if not is_api(scope) or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._running >= self._most:
            raise UnavailableError(f"{self._running} requests are in flight, which is the maximum (--concurrency)")
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1


class BodyLimits:
    """Middleware that limits the size of a body and the time in which it must arrive. Compressed bodies are refused."""

    def __init__(self, app: ASGIApp, config: WebConfig) -> None:
        self._app = app
        self._most = config.max_body_bytes
        self._seconds = config.body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on.

        Raises:
            MessageTooLargeError: the body is too large; also raised from `receive`.
            HTTPException: 415, the body is compressed; 408, raised from `receive`, it arrives too slowly.
        """
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if (encoding := headers.get("content-encoding", "identity").strip().lower()) != "identity":
                detail = f"Content-Encoding: got {encoding[:80]!r}, expected none: compressed bodies are not accepted"
                raise HTTPException(415, detail, {"Accept-Encoding": "identity"})
            length = headers.get("content-length", "")
            if length.isdecimal():
                self._check(int(length))
            receive = self._limited(receive)
        await self._app(scope, receive, send)

    def _limited(self, receive: Receive) -> Receive:
        deadline = asyncio.get_running_loop().time() + self._seconds
        size, is_complete = 0, False

        async def limited() -> Message:
            nonlocal size, is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                detail = f"the body did not arrive within {self._seconds:g} seconds"
                raise HTTPException(408, detail, _CLOSE) from None
            size += len(message.get("body", b""))
            self._check(size)
            is_complete = not message.get("more_body", False)
            return message

        return limited

    def _check(self, size: int) -> None:
        if size > self._most:
            raise MessageTooLargeError(f"body: got {size:,} bytes or more, expected at most {self._most:,} bytes")


def read_image(data: bytes, max_pixels: int) -> bytes:
    """The image file in `data`: the file itself, its base64 text, or a base64 `data:` URI.

    Only the file's header is read: the pixels are decoded by the server, which has limits of its own.

    Raises:
        InvalidArgumentError: it is a URL, not an image file, or has more than `max_pixels` pixels.
    """
    if _URL.match(data, 0, _QUOTED_BYTES):
        raise InvalidArgumentError.of_field("image", _quotation(data), "the image itself: URLs are not fetched")
    if not data:
        raise InvalidArgumentError.of_field("image", "", "an image file, its base64 text, or a base64 data: URI")
    file = image_file(data)
    if _HEIC.match(file):
        return file
    width, height = _size(file, data, max_pixels)
    if width * height > max_pixels:
        raise InvalidArgumentError.of_field("image", f"{width} x {height} pixels", f"at most {max_pixels:,} pixels")
    return file


def _size(file: bytes, data: bytes, max_pixels: int) -> tuple[int, int]:
    """The width and height in an image file's header."""
    try:
        with warnings.catch_warnings():
            # Our limit replaces Pillow's default limit, whose warning this is.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(file), formats=_FORMATS) as opened:
                return opened.size
    except PIL.Image.DecompressionBombError as error:
        raise InvalidArgumentError.of_field("image", str(error), f"at most {max_pixels:,} pixels") from None
    except Exception:  # noqa: BLE001 - decoders raise anything for damaged files
        formats = f"an image file ({', '.join(_FORMATS)} or HEIC), its base64 text, or a base64 data: URI"
        raise InvalidArgumentError.of_field("image", _quotation(data), formats) from None


def _quotation(data: bytes) -> str:
    """The beginning of what the caller sent, as text if it is text."""
    text = data[:_QUOTED_BYTES].decode("ascii", errors="replace")
    if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        return f"{len(data):,} bytes beginning with {data[:8].hex(' ')}"
    return f"{text}…" if len(data) > _QUOTED_BYTES else text
