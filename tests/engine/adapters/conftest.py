"""A base model, and adapters that peft makes for it."""

import shutil

import pytest

from tests.engine.checkpoint.folders import load_folder


@pytest.fixture(scope="session")
def base(tiny):
    """The tiny checkpoint, in float32."""
    return load_folder(tiny)


@pytest.fixture(scope="session")
def in_half_precision(tiny):
    return load_folder(tiny, dtype="bfloat16")


@pytest.fixture
def folder(tiny, tmp_path):
    """A copy of a small adapter in the original layout."""
    folder = tmp_path / "adapter"
    shutil.copytree(tiny / "adapter_small", folder, ignore=shutil.ignore_patterns("expected.json"))
    return folder
