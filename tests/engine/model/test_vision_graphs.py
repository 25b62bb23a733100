"""Recordings of the vision tower give what the tower gives. What records is a stand-in: a graph needs a GPU."""

import pytest
import torch
from florence2_engine.cuda_graphs import Recording
from florence2_engine.vision_graphs import VisionGraphs


def tower(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean(dim=(2, 3)) * 3


@pytest.fixture
def recorded() -> list[tuple[int, ...]]:
    return []


@pytest.fixture
def graphs(recorded) -> VisionGraphs:
    def record(run, inputs):
        recorded.append(tuple(inputs.shape))
        output = run(inputs)
        return Recording(inputs, lambda: output.copy_(run(inputs)), output)

    return VisionGraphs(tower, record)


def test_recordings_give_what_the_tower_gives(graphs):
    for _ in range(3):
        images = torch.randn(2, 3, 8, 8)
        assert torch.equal(graphs(images), tower(images))


def test_each_number_of_images_is_recorded_once(graphs, recorded):
    for count in (1, 4, 1, 2, 4):
        graphs(torch.randn(count, 3, 8, 8))
    assert recorded == [(1, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]


def test_sizes_beyond_the_most_recordings_are_encoded_plainly(graphs, recorded):
    for side in range(2, 14):
        images = torch.randn(1, 3, side, side)
        assert torch.equal(graphs(images), tower(images))
    assert len(recorded) == 8


def test_where_nothing_can_be_recorded_images_are_encoded_plainly(caplog):
    def fail(_run, _inputs):
        raise RuntimeError("no graphs here")

    graphs = VisionGraphs(tower, fail)
    for _ in range(3):
        images = torch.randn(1, 3, 8, 8)
        assert torch.equal(graphs(images), tower(images))
    assert caplog.text.count("no graphs here") == 1
