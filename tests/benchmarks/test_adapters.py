"""The `adapters` workload, on a model small enough for a test."""

import io

import pytest
import torch
from florence2_server.engine.model.low_rank import RowAdapters
from rich.console import Console
from transformers import Florence2Config, Florence2ForConditionalGeneration

from benchmarks.comparison.report import print_workload
from benchmarks.comparison.targets import verdicts
from benchmarks.kernels import adapters
from benchmarks.kernels.adapters import HarmedError, Sizes, measure, print_table

SIZES = Sizes(image_side=48, image_tokens=9, steps=1)


@pytest.fixture
def model():
    torch.manual_seed(1)
    config = Florence2Config(
        vision_config={
            "depths": [1],
            "patch_size": [7],
            "patch_stride": [4],
            "patch_padding": [3],
            "patch_prenorm": [False],
            "embed_dim": [32],
            "num_heads": [2],
            "num_groups": [2],
            "window_size": 5,
            "projection_dim": 32,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": 120,
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "init_std": 0.3,
        },
    )
    return Florence2ForConditionalGeneration(config).eval()


def test_every_load_is_measured_in_each_round_and_its_targets_are_judged(model):
    result = measure(model, 2, SIZES)
    assert [load["name"] for load in result["loads"]] == list(adapters.LOADS)
    for load in result["loads"]:
        assert len(load["rounds"]) == 2
        assert all(each[side]["seconds"] > 0 for each in load["rounds"] for side in ("ours", "base"))
    judged = [each for each in verdicts({"adapters": result}) if each["met"] is not None]
    assert [each["target"] for each in judged] == [f"adapters: {load}" for load in adapters.BOUNDED]


def test_the_memory_of_an_adapter_is_that_of_its_tensors(model):
    result = measure(model, 1, SIZES)
    text = 9 * (32 + 32) + 2 * (64 + 32) + (32 + 120)  # query, key and value of three attentions, fc2, the output layer
    vision = 2 * (4 * 32 + 32)
    assert result["tensor_bytes"] == 4 * 8 * (text + vision)
    # In addition to it, the owner of each column.
    assert 1 <= result["adapter_bytes"] / result["tensor_bytes"] < 1.05


def test_the_run_fails_if_an_adapter_changes_the_rows_of_others(model, monkeypatch):
    monkeypatch.setattr(RowAdapters, "_others_columns", lambda *_: torch.tensor(False))
    with pytest.raises(HarmedError, match="expected those of the first only"):
        measure(model, 1, SIZES)


def test_tables():
    loads = [
        {"name": name, "rounds": [{"ours": {"seconds": 0.3}, "base": {"seconds": 0.2}}]} for name in adapters.LOADS
    ]
    result = {"loads": loads, "adapter_bytes": 1010.0, "tensor_bytes": 1000}
    console = Console(file=io.StringIO(), width=200)
    print_table(console, result)
    print_workload(console, "adapters", result)
    text = " ".join(console.file.getvalue().split())
    assert text.count("at most 1.4: missed") == 2
    assert "an adapter takes 1,010 bytes; its tensors have 1,000" in text
    assert "an adapter takes 1.010 of its tensors' size" in text
