import torch
from florence2_engine.embeddings import EmbeddingCache, EmbeddingCacheFigures
from florence2_engine.images import Image

FOUR_BYTES = torch.zeros(1)


def images(count: int) -> list[Image]:
    return [Image((1, 1), FOUR_BYTES) for _ in range(count)]


def test_the_image_asked_about_longest_ago_makes_room():
    cache = EmbeddingCache(max_bytes=8)
    first, second, third = images(3)
    for image, cached in [(first, False), (second, False), (first, True), (third, False)]:
        cache.use(image, cached)
    assert list(cache._images) == [first, third]
    assert cache.figures == EmbeddingCacheFigures(hits=1, misses=3, bytes=8)


def test_memory_stays_within_the_limit():
    cache = EmbeddingCache(max_bytes=11)
    for image in images(1000):
        cache.use(image, cached=False)
        assert cache.figures.bytes <= 11
    assert cache.figures == EmbeddingCacheFigures(hits=0, misses=1000, bytes=8)


def test_a_cache_of_no_bytes_keeps_nothing():
    cache = EmbeddingCache(max_bytes=0)
    cache.use(images(1)[0], cached=False)
    assert cache.figures.bytes == 0
