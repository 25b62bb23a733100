"""The encoded image of a request, which is in its message or in a file."""

import os
import stat

from florence2_server.engine.errors import ImageFileError
from florence2_server.v1.engine_pb2 import GenerateRequest


def encoded_image(message: GenerateRequest) -> bytes:
    """Read the image as the caller sent it.

    Raises:
        ImageFileError: the image's file cannot be opened, or the path now names something else.
    """
    if not message.image_file:
        return message.image
    try:
        # Once a request is cancelled, its path may name anything, such as a pipe that blocks on opening or reading.
        descriptor = os.open(message.image_file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ImageFileError(f"the image's file cannot be opened: {error}") from None
    try:
        return _read(descriptor, message)
    finally:
        os.close(descriptor)


def _read(descriptor: int, message: GenerateRequest) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != message.image_file_bytes:
        raise ImageFileError(f"{message.image_file} is not the image's file of {message.image_file_bytes} bytes")
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()
