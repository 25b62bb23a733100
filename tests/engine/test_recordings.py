"""Which graphs are recorded, and when. A stand-in records: real graphs need a GPU."""

import pytest
import torch
from florence2_server.config import EngineConfig
from florence2_server.engine import warm_up
from florence2_server.engine.checkpoint.loading import load
from florence2_server.engine.model.graphs import Recording
from florence2_server.engine.model.normalization import Normalization
from florence2_server.engine.model.runner import Runner
from florence2_server.engine.scheduler import BatchLimits

from tests.conftest import DEMO_CHECKPOINT

SLOTS, ROWS, IMAGES, POSITIONS = 3, 9, 2, 1024


@pytest.fixture
def checkpoint():
    return load(EngineConfig(checkpoint=str(DEMO_CHECKPOINT), device="cpu"))


@pytest.fixture
def recorded() -> list[tuple[int, ...]]:
    """The shapes of what was recorded: of images, or of the rows of decode steps."""
    return []


@pytest.fixture
def runner(checkpoint, recorded) -> Runner:
    """A runner that records as on a GPU."""

    def record(run, inputs):
        recorded.append(tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else inputs.rows_of_slots.shape)
        output = run(inputs)
        return Recording(inputs, lambda: output.copy_(run(inputs)), output)

    return Runner(checkpoint.model, Normalization.of(checkpoint.image_processor), SLOTS, ROWS, POSITIONS, record)


def rows(beams: list[int]) -> list[list[int]]:
    """The rows of generations with these numbers of beams."""
    return [list(range(sum(beams[:slot]), sum(beams[: slot + 1]))) for slot in range(len(beams))]


def test_after_warm_up_ordinary_load_records_nothing(checkpoint, runner, recorded):
    warm_up.record_graphs(runner, checkpoint, BatchLimits(SLOTS, ROWS, prefill_batch=2, image_batch=IMAGES))
    assert recorded
    del recorded[:]
    size = checkpoint.image_processor.size
    images = [torch.zeros(3, size["height"], size["width"], dtype=torch.uint8)] * IMAGES
    embeddings = [*runner.encode_images(images), *runner.encode_images(images[:1])]
    runner.prefill(0, embeddings, [[5, 6, 7], [8], [9, 10]])
    for beams in ([1], [1, 1], [1, 1, 1], [3], [3, 3], [3, 3, 3]):
        for position in (0, 63, 64, 200):
            runner.decode_step([0] * sum(beams), [position] * sum(beams), rows(beams))
    assert recorded == []


def test_an_embedding_owns_its_memory_and_outlives_other_images(checkpoint, runner):
    size = checkpoint.image_processor.size
    images = [torch.full((3, size["height"], size["width"]), shade, dtype=torch.uint8) for shade in (10, 90, 200)]
    first, second = runner.encode_images(images[:2])
    kept = first.clone()
    runner.encode_images(images[1:])
    assert torch.equal(first, kept)
    assert first.untyped_storage().nbytes() == first.numel() * first.element_size()
    assert first.untyped_storage().data_ptr() != second.untyped_storage().data_ptr()


def test_on_a_cpu_warm_up_runs_each_call_once(checkpoint, runner, recorded):
    warm_up.run_once(runner, checkpoint)
    assert recorded == [(1, 3, 64, 64), (1, 1)]
