"""The image of a call, which is in its message or in a file."""

import os
import stat

from florence2.engine.v1.engine_pb2 import GenerateRequest

from florence2_engine.errors import ImageFileError


def sent_image(request: GenerateRequest) -> bytes:
    """The image as the caller sent it.

    Raises:
        ImageFileError: it is in a file that cannot be opened or is not the one that the call means.
    """
    if not request.image_file:
        return request.image
    try:
        # After a cancellation the path may name anything, such as a pipe, on which opening or reading would block.
        descriptor = os.open(request.image_file, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise ImageFileError(f"the image's file cannot be opened: {error}") from None
    try:
        return _read(descriptor, request)
    finally:
        os.close(descriptor)


def _read(descriptor: int, request: GenerateRequest) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != request.image_file_bytes:
        raise ImageFileError(f"{request.image_file} is not the image's file of {request.image_file_bytes} bytes")
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()
