"""Encoded image bytes -> pixels of the size the vision tower reads. Each image is decoded once while anybody has it."""

import base64
import binascii
import contextlib
import hashlib
import io
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from florence2.errors import InvalidArgumentError
from torch import Tensor

from florence2_engine.config import base64_bytes
from florence2_engine.frames import has_more_frames

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/=\s]+")
_BASE64_PROBE_BYTES = 1024


@dataclass(eq=False)
class Image:
    """A decoded image, shared by all requests for the same bytes while any of them, or the cache, has it.

    Attributes:
        size: (width, height) in pixels of the original as displayed, EXIF orientation applied.
        embedding: (image tokens, d_model), once the vision tower has run.
    """

    size: tuple[int, int]
    embedding: Tensor | None = None
    _pixels: Tensor | None = None

    @property
    def pixels(self) -> Tensor:
        """(3, height, width) of 8 bits, resized as the processor does; there until the embedding is."""
        assert self._pixels is not None, "an image is encoded once"
        return self._pixels

    def set_embedding(self, embedding: Tensor) -> None:
        """The vision tower has run; the pixels are let go of."""
        self.embedding = embedding
        self._pixels = None


class ImageDecoder:
    """Decodes images within limits; bytes asked for twice at once are decoded once.

    Args:
        processor: the checkpoint's Hugging Face image processor.
        max_bytes: the largest encoded image, in bytes.
        max_pixels: the largest image, width x height.
        max_frames: the most frames of an animation, of which the first one is decoded.
    """

    def __init__(self, processor: Any, max_bytes: int, max_pixels: int, max_frames: int) -> None:
        self._processor = processor
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._max_frames = max_frames
        self._lock = threading.Lock()
        self._decoding: dict[bytes, Future[Image]] = {}
        self._decoded: WeakValueDictionary[bytes, Image] = WeakValueDictionary()

    def decode(self, data: bytes) -> Image:
        """The image in `data` (an image file, or its base64 text).

        Raises:
            InvalidArgumentError: not an image of a known format, damaged, or over a limit.
        """
        data = self._without_base64(data)
        digest = hashlib.sha256(data).digest()
        with self._lock:
            if (image := self._decoded.get(digest)) is not None:
                return image
            is_mine = (decoding := self._decoding.get(digest)) is None
            if decoding is None:
                decoding = self._decoding[digest] = Future()
        if is_mine:
            self._decode_for_all(data, digest, decoding)
        try:
            return decoding.result()
        finally:
            del decoding  # an error's trace holds this frame: the file and its pixels would wait for the collector

    def _decode_for_all(self, data: bytes, digest: bytes, waited_for: Future[Image]) -> None:
        try:
            image = self._decode(data)
            with self._lock:
                self._decoded[digest] = image
            waited_for.set_result(image)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            waited_for.set_exception(error)
        finally:
            with self._lock:
                del self._decoding[digest]
            del waited_for  # as in `decode`

    def _decode(self, data: bytes) -> Image:
        original = _open(data)
        width, height = original.size
        if width * height > self._max_pixels:
            raise InvalidArgumentError.of_field(
                "IMAGE", f"{width} x {height} pixels", f"at most {self._max_pixels} pixels"
            )
        _check_frames(original, data, self._max_frames)
        displayed = _load(original)
        # The rest of the processor's work, `Normalisation`, is the device's.
        resized = self._processor(images=displayed, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels = resized["pixel_values"][0]
        return Image(displayed.size, _pixels=torch.from_numpy(np.ascontiguousarray(pixels)))

    def _without_base64(self, data: bytes) -> bytes:
        self._check_bytes(data, limit=base64_bytes(self._max_bytes))
        if _BASE64_TEXT.fullmatch(data, 0, min(len(data), _BASE64_PROBE_BYTES)):
            with contextlib.suppress(
                binascii.Error
            ):  # text that is no base64 is no image either, and opening it says so
                data = base64.b64decode(b"".join(data.split()), validate=True)
        self._check_bytes(data, limit=self._max_bytes)
        return data

    def _check_bytes(self, data: bytes, limit: int) -> None:
        if not data:
            raise InvalidArgumentError.of_field("IMAGE", data, "an encoded image")
        if len(data) > limit:
            raise InvalidArgumentError.of_field("IMAGE", f"{len(data)} bytes", f"at most {self._max_bytes} bytes")


def _open(data: bytes) -> PIL.Image.Image:
    """The image with its header read, no pixel yet."""
    try:
        return PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.Image.DecompressionBombError as error:
        raise InvalidArgumentError.of_field("IMAGE", str(error), "fewer pixels") from None
    except Exception:  # noqa: BLE001 - decoders meet damaged files with all kinds of exceptions
        raise InvalidArgumentError.of_field(
            "IMAGE", data[:16], f"a file of {', '.join(FORMATS)}, or its base64"
        ) from None


def _check_frames(image: PIL.Image.Image, data: bytes, limit: int) -> None:
    try:
        has_more = has_more_frames(image, data, limit)
    except Exception as error:  # noqa: BLE001 - decoders meet damaged files with all kinds of exceptions
        raise _damage(image, error) from None
    if has_more:
        raise InvalidArgumentError.of_field("IMAGE", f"{image.format} of more frames", f"at most {limit} frames")


def _load(image: PIL.Image.Image) -> PIL.Image.Image:
    """The first frame in RGB, turned as it is displayed."""
    try:
        return PIL.ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # noqa: BLE001 - decoders meet damaged files with all kinds of exceptions
        raise _damage(image, error) from None


def _damage(image: PIL.Image.Image, error: Exception) -> InvalidArgumentError:
    found = f"{image.format} of {image.width} x {image.height} pixels"
    return InvalidArgumentError.of_field("IMAGE", found, f"a whole, undamaged image ({error})")
