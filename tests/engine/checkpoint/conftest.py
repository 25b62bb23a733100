"""Checkpoints of both layouts, and copies that a test may damage."""

import shutil

import pytest
from safetensors.torch import load_file

from tests.engine.checkpoint.folders import load_folder


@pytest.fixture
def copy(random_checkpoint, tmp_path):
    """The random checkpoint, in the native layout."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, folder)
    return folder


@pytest.fixture(scope="module")
def weights(tiny):
    return load_file(tiny / "model.safetensors")


@pytest.fixture(scope="module")
def loaded(tiny):
    """The tensors of the tiny checkpoint by their names in transformers."""
    return load_folder(tiny).model.state_dict()


@pytest.fixture
def tiny_copy(tiny, tmp_path):
    """The tiny checkpoint without its weights."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("adapter_*", "*.safetensors", "*.png"))
    return folder
