"""A cache of image embeddings, so that an image is encoded once for all requests about it."""

from collections import OrderedDict
from dataclasses import dataclass

from florence2_server.engine.images.decoding import Image


@dataclass(frozen=True)
class EmbeddingCacheStatistics:
    """Size and hit counts of a cache.

    Attributes:
        hits: generations whose image had been encoded before.
        misses: generations whose image had to be encoded.
        bytes: memory of the cached embeddings.
    """

    hits: int
    misses: int
    bytes: int


class EmbeddingCache:
    """Keeps the most recently used images with their embeddings. It belongs to the engine's thread.

    As long as an image is kept here, `ImageDecoder` finds it by the hash of its bytes, and it is neither decoded nor
    encoded again.

    Args:
        max_bytes: the maximum memory of embeddings; 0 caches none.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._images: OrderedDict[Image, int] = OrderedDict()
        self._bytes = 0
        self._hits = 0
        self._misses = 0

    @property
    def statistics(self) -> EmbeddingCacheStatistics:
        """Size and hit counts. Thread-safe."""
        return EmbeddingCacheStatistics(self._hits, self._misses, self._bytes)

    def use(self, image: Image, cached: bool) -> None:
        """Count a use of an encoded image, and keep it; the least recently used images are dropped to make room.

        Args:
            image: an image that has its embedding.
            cached: whether this use is a hit.
        """
        self._hits += cached
        self._misses += not cached
        assert image.embedding is not None, "only encoded images are cached"
        if image not in self._images:
            size = image.embedding.numel() * image.embedding.element_size()
            self._images[image] = size
            self._bytes += size
        self._images.move_to_end(image)
        while self._bytes > self._max_bytes:
            _, size = self._images.popitem(last=False)
            self._bytes -= size

    def drop(self, adapter: int) -> None:
        """Drop the images that were encoded with an adapter."""
        for image in [image for image in self._images if image.adapter == adapter]:
            self._bytes -= self._images.pop(image)
