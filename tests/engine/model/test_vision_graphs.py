"""Recordings of the vision tower compute what the tower computes. A stand-in records: CUDA graphs need a GPU."""

import pytest
import torch
from florence2_server.engine.model.graphs import GraphCache, Recording
from florence2_server.engine.model.vision import vision_graphs


def tower(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.mean(dim=(2, 3)) * 3


@pytest.fixture
def recorded() -> list[tuple[int, ...]]:
    return []


@pytest.fixture
def graphs(recorded) -> GraphCache[torch.Tensor]:
    def record(run, inputs):
        recorded.append(tuple(inputs.shape))
        output = run(inputs)
        return Recording(inputs, lambda: output.copy_(run(inputs)), output)

    return vision_graphs(tower, record)


def test_recordings_compute_what_the_tower_computes(graphs):
    for _ in range(3):
        images = torch.randn(2, 3, 8, 8)
        assert torch.equal(graphs(images), tower(images))


def test_each_number_of_images_is_recorded_once(graphs, recorded):
    for count in (1, 4, 1, 2, 4):
        graphs(torch.randn(count, 3, 8, 8))
    assert recorded == [(1, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]


def test_shapes_beyond_the_limit_are_encoded_without_a_recording(graphs, recorded):
    for side in range(2, 14):
        images = torch.randn(1, 3, side, side)
        assert torch.equal(graphs(images), tower(images))
    assert len(recorded) == 8


def test_if_recording_fails_images_are_encoded_without_and_one_warning_is_logged(caplog):
    def fail(_run, _inputs):
        raise RuntimeError("no graphs here")

    graphs = vision_graphs(tower, fail)
    for _ in range(3):
        images = torch.randn(1, 3, 8, 8)
        assert torch.equal(graphs(images), tower(images))
    assert caplog.text.count("no graphs here") == 1
