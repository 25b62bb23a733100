"""Encoded image bytes -> pixels of the size the vision tower reads. Each image is decoded once while anybody has it."""

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from florence2_engine.image_file import ImageReader
from florence2_engine.resizing import Resizing


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
        resizing: resizes pictures to the size that the vision tower reads.
        reader: reads image files.
    """

    def __init__(self, resizing: Resizing, reader: ImageReader) -> None:
        self._resizing = resizing
        self._reader = reader
        self._lock = threading.Lock()
        self._decoding: dict[bytes, Future[Image]] = {}
        self._decoded: WeakValueDictionary[bytes, Image] = WeakValueDictionary()

    def decode(self, sent: bytes) -> Image:
        """The image that was sent as an image file, its base64 text, or a base64 `data:` URI.

        Raises:
            InvalidArgumentError: not an image of a known format, damaged, or over a limit.
        """
        data = self._reader.file(sent)
        digest = hashlib.sha256(data).digest()
        with self._lock:
            if (image := self._decoded.get(digest)) is not None:
                return image
            is_mine = (decoding := self._decoding.get(digest)) is None
            if decoding is None:
                decoding = self._decoding[digest] = Future()
        if is_mine:
            self._decode_for_all(data, sent, digest, decoding)
        try:
            return decoding.result()
        finally:
            del decoding  # an error's trace holds this frame: the file and its pixels would wait for the collector

    def _decode_for_all(self, data: bytes, sent: bytes, digest: bytes, waited_for: Future[Image]) -> None:
        try:
            image = self._decode(data, sent)
            with self._lock:
                self._decoded[digest] = image
            waited_for.set_result(image)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            waited_for.set_exception(error)
        finally:
            with self._lock:
                del self._decoding[digest]
            del waited_for  # as in `decode`

    def _decode(self, data: bytes, sent: bytes) -> Image:
        picture = self._reader.load(data, sent)
        return Image(picture.size, _pixels=torch.from_numpy(self._resizing(picture)))
