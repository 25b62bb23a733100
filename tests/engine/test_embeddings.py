import torch
from florence2_server.engine.embeddings import EmbeddingCache, EmbeddingCacheStatistics
from florence2_server.engine.images.decoding import Image

FOUR_BYTES = torch.zeros(1)


def images(count: int) -> list[Image]:
    return [Image((1, 1), embedding=FOUR_BYTES) for _ in range(count)]


def test_the_least_recently_used_image_is_evicted():
    cache = EmbeddingCache(max_bytes=8)
    first, second, third = images(3)
    for image, cached in [(first, False), (second, False), (first, True), (third, False)]:
        cache.use(image, cached)
    assert list(cache._images) == [first, third]
    assert cache.statistics == EmbeddingCacheStatistics(hits=1, misses=3, bytes=8)


def test_memory_stays_within_the_limit():
    cache = EmbeddingCache(max_bytes=11)
    for image in images(1000):
        cache.use(image, cached=False)
        assert cache.statistics.bytes <= 11
    assert cache.statistics == EmbeddingCacheStatistics(hits=0, misses=1000, bytes=8)


def test_a_cache_of_zero_bytes_keeps_nothing():
    cache = EmbeddingCache(max_bytes=0)
    cache.use(images(1)[0], cached=False)
    assert cache.statistics.bytes == 0
