"""From encoded images to pixels of the size that the vision tower reads. Images in use are not decoded again."""

import hashlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from florence2_server.engine.images.image_file import ImageReader
from florence2_server.engine.images.resizing import Resizing
from florence2_server.engine.model.adapter_index import BASE


@dataclass(eq=False)
class Image:
    """A decoded image, shared by all generations about the same bytes with the same vision tower, and by the cache.

    Attributes:
        size: (width, height) of the original as displayed, in pixels; EXIF orientation is applied.
        adapter: the index of the adapter that changes the vision tower, or BASE.
        embedding: (image tokens, d_model); None until the vision tower has run.
        was_ahead: whether the vision tower was run, or failed, for a generation that has not been prefilled yet.
    """

    size: tuple[int, int]
    adapter: int = BASE
    embedding: Tensor | None = None
    was_ahead: bool = False
    _pixels: Tensor | None = None

    @property
    def may_be_encoded_ahead(self) -> bool:
        """Whether it has no embedding, and encoding it ahead has not failed."""
        return self.embedding is None and not self.was_ahead

    @property
    def pixels(self) -> Tensor:
        """(3, height, width) uint8, resized as the processor does; available until the embedding is."""
        assert self._pixels is not None, "an image is encoded once"
        return self._pixels

    def set_embedding(self, embedding: Tensor) -> None:
        """Keep the embedding, and drop the pixels."""
        self.embedding = embedding
        self._pixels = None


class ImageDecoder:
    """Decodes images within limits. Safe to use from several threads; those with the same bytes share one decoding.

    Args:
        resizing: resizes images to the size that the vision tower reads.
        reader: reads image files.
    """

    def __init__(self, resizing: Resizing, reader: ImageReader) -> None:
        self._resizing = resizing
        self._reader = reader
        self._lock = threading.Lock()
        self._decoding: dict[tuple[bytes, int], Future[Image]] = {}
        self._decoded: WeakValueDictionary[tuple[bytes, int], Image] = WeakValueDictionary()

    def decode(self, encoded: bytes, adapter: int = BASE) -> Image:
        """Decode an image file, its base64 text, or a base64 `data:` URI.

        Args:
            encoded: the image.
            adapter: the index of the adapter that changes the vision tower, or BASE.

        Raises:
            InvalidArgumentError: it is not an image of a known format, is damaged, or exceeds a limit.
        """
        data = self._reader.file(encoded)
        key = hashlib.sha256(data).digest(), adapter
        with self._lock:
            if (image := self._decoded.get(key)) is not None:
                return image
            is_mine = (decoding := self._decoding.get(key)) is None
            if decoding is None:
                decoding = self._decoding[key] = Future()
        if is_mine:
            self._decode_for_all(data, encoded, key, decoding)
        try:
            return decoding.result()
        finally:
            del decoding  # an error's traceback holds this frame: the file and its pixels would wait for the collector

    def _decode_for_all(self, data: bytes, encoded: bytes, key: tuple[bytes, int], decoding: Future[Image]) -> None:
        try:
            image = self._decode(data, encoded, key[1])
            with self._lock:
                self._decoded[key] = image
            decoding.set_result(image)
        except BaseException as error:  # noqa: BLE001 - raised by `result()`
            decoding.set_exception(error)
        finally:
            with self._lock:
                del self._decoding[key]
            del decoding  # as in `decode`

    def _decode(self, data: bytes, encoded: bytes, adapter: int) -> Image:
        picture = self._reader.load(data, encoded)
        return Image(picture.size, adapter, _pixels=torch.from_numpy(self._resizing(picture)))
