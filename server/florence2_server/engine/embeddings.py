"""The image embeddings that are kept, so that an image is encoded once for all its tasks."""

from collections import OrderedDict
from dataclasses import dataclass

from florence2_engine.images import Image


@dataclass(frozen=True)
class EmbeddingCacheFigures:
    """What a cache holds and what it was good for.

    Attributes:
        hits: requests whose image needed no encoding.
        misses: requests whose image was encoded.
        bytes: memory of the embeddings that are kept.
    """

    hits: int
    misses: int
    bytes: int


class EmbeddingCache:
    """Keeps the images that were asked about last, with their embeddings.

    While an image is kept here, `ImageDecoder` finds it by the hash of its bytes: neither decoding nor encoding is done
    again. It belongs to the engine's thread.

    Args:
        max_bytes: the most memory of embeddings; 0 keeps none but those in use.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[Image, int] = OrderedDict()
        self._bytes = 0
        self._hits = 0
        self._misses = 0

    @property
    def figures(self) -> EmbeddingCacheFigures:
        """What it holds and what it was good for; any thread may ask."""
        return EmbeddingCacheFigures(self._hits, self._misses, self._bytes)

    def use(self, image: Image, cached: bool) -> None:
        """An image that has its embedding was asked about; the ones that were asked about longest ago make room."""
        self._hits += cached
        self._misses += not cached
        assert image.embedding is not None, "an image is kept for its embedding"
        if image not in self._images:
            size = image.embedding.numel() * image.embedding.element_size()
            self._images[image] = size
            self._bytes += size
        self._images.move_to_end(image)
        while self._bytes > self._max_bytes:
            _, size = self._images.popitem(last=False)
            self._bytes -= size
