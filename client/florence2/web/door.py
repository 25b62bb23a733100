"""What all routes share."""

import asyncio
from dataclasses import dataclass

from starlette.requests import Request

from florence2._arguments import check_timeout
from florence2.errors import InvalidArgumentError
from florence2.web.config import WebConfig
from florence2.web.limits import read_image
from florence2.web.models import Models


@dataclass(frozen=True)
class Door:
    """The settings and the models that all routes use; `request.app.state.door`."""

    config: WebConfig
    models: Models

    def timeout(self, seconds: float | None = None) -> float:
        """The timeout of a request, from what the caller set.

        Raises:
            TypeError: it is not a number.
            InvalidArgumentError: it is not above 0, or longer than this server allows.
        """
        most = self.config.timeout
        given = check_timeout(seconds)
        if given is None:
            return most
        if given > most:
            raise InvalidArgumentError.of_field("timeout", seconds, f"at most {most:g} seconds")
        return given

    async def image(self, data: bytes) -> bytes:
        """The image file in `data`, checked against the limit of pixels. See `limits.read_image`."""
        # In a thread: decoding 32 MiB of base64 would delay every other request.
        return await asyncio.to_thread(read_image, data, self.config.max_image_pixels)


def door_of(request: Request) -> Door:
    """The settings and the models of a request's app."""
    door = request.app.state.door
    assert isinstance(door, Door)
    return door
