"""Adapters with random weights, made by peft on transformers' model."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from florence2_server.engine.model.adapter_tensors import AdapterTensors, TokenRows
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.kernels.original_layout import original_name
from tests.engine.checkpoint.folders import edit_json, read_json

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."


def make_adapter(base: Any, *, vocabulary: int = 0, seed: int = 1, **options: Any) -> Any:
    """A peft model: a copy of `base`, with `vocabulary` tokens if given, and an adapter with random weights."""
    peft = pytest.importorskip("peft", reason="peft, which makes the adapters, is not installed")
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(_copy(base, vocabulary), peft.LoraConfig(**options))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
            elif "modules_to_save" in name or "trainable_tokens_delta" in name:
                weight += torch.randn_like(weight)
    return model.eval()


def save(model: Any, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(folder, **options)
    return folder


def reload(base: Any, folder: Path, vocabulary: int = 0) -> Any:
    """The adapter as peft loads it."""
    peft = pytest.importorskip("peft", reason="peft, which loads the adapters, is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(_copy(base, vocabulary), folder).eval()


def _copy(base: Any, vocabulary: int) -> Any:
    model = copy.deepcopy(base)
    if vocabulary:
        torch.manual_seed(5)  # added rows are random, and the same whenever this base is made
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    return model


def to_original_layout(folder: Path, copied: Path) -> Path:
    """A copy of an adapter with the names that the original code gives to the same modules."""
    tensors = load_file(folder / WEIGHTS)
    copied.mkdir()
    save_file({_original_key(name): tensor for name, tensor in tensors.items()}, copied / WEIGHTS)
    config = folder / "adapter_config.json"
    (copied / config.name).write_text(config.read_text())
    return copied


def _original_key(key: str) -> str:
    module, mark, end = key.removeprefix(PREFIX).partition(".lora_")
    if not mark:
        module, mark, end = key.removeprefix(PREFIX).partition(".token_adapter")
    return (
        PREFIX + original_name(f"{module}.weight").removesuffix(".weight") + mark + end
        if mark
        else (PREFIX + original_name(module))
    )


def change(folder: Path, **changes: Any) -> None:
    """Change fields of the adapter's config."""
    edit_json(folder / "adapter_config.json", **changes)


def config_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "adapter_config.json")


def replaced(table: Tensor, rows: TokenRows | None, vocabulary: int) -> Tensor:
    """A table with an adapter's rows."""
    result = torch.full((vocabulary, table.shape[1]), torch.nan)
    result[: len(table)] = table
    if rows is not None:
        result[rows.ids] = rows.rows
    return result


def merge(model: Any, adapter: AdapterTensors) -> Any:
    """A copy of a model with the factors merged into its weights."""
    merged = copy.deepcopy(model)
    if "lm_head" in adapter.factors:
        merged.lm_head.weight = torch.nn.Parameter(merged.lm_head.weight.detach().clone())  # untied
    for name, factors in adapter.factors.items():
        weight = merged.get_submodule(name).weight.data
        weight += (factors.up @ factors.down.flatten(1)).view(weight.shape)
    return merged
