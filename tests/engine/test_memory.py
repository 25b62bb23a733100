"""Memory stays as configured over ten thousand requests."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.served import Served
from tests.reference import TASKS, png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

pytestmark = pytest.mark.slow

WARM_UP, REQUESTS, CALLERS = 1_000, 10_000, 24
ALLOWED_GROWTH = 0.02
CACHE_BYTES = 1_000_000  # room for 24 of the demo checkpoint's embeddings, fewer than there are images


def test_memory_does_not_grow_over_ten_thousand_requests():
    images = [png(draw(sample_scene(seed))) for seed in range(200)]
    options = [{"max_new_tokens": 2}, {"max_new_tokens": 5, "num_beams": 3}, {"max_new_tokens": 20, "num_beams": 1}]
    requests = itertools.cycle(itertools.product(images, TASKS, options))
    served = Served(DEMO_CHECKPOINT, slots=16, embedding_cache_bytes=CACHE_BYTES)
    try:
        with ThreadPoolExecutor(CALLERS) as callers:
            for _ in callers.map(lambda each: served.run_task(*each), itertools.islice(requests, WARM_UP)):
                pass
            before = resident_bytes()
            for _ in callers.map(lambda each: served.run_task(*each), itertools.islice(requests, REQUESTS)):
                pass
        statistics = served.engine.embedding_statistics
        assert statistics.hits + statistics.misses == WARM_UP + REQUESTS
        assert 0 < statistics.bytes <= CACHE_BYTES
        assert resident_bytes() < before * (1 + ALLOWED_GROWTH)
    finally:
        served.engine.close()


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
