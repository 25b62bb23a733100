"""Checkpoints in folders: loading, saving and editing them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.loading import Checkpoint, load
from safetensors.torch import save_file
from torch import Tensor

SHARED = "language_model.model.shared.weight"  # the token embeddings in the original layout


def load_folder(folder: Path, **settings: Any) -> Checkpoint:
    return load(EngineConfig(checkpoint=str(folder), device="cpu", **settings))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**read_json(path), **changes}))


def save_safetensors(weights: Mapping[str, Tensor], folder: Path) -> None:
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def save_pickle(weights: Mapping[str, Tensor], folder: Path) -> None:
    torch.save(weights, folder / "pytorch_model.bin")


def set_in(section: str | None, **changes: Any) -> Callable[[Path, object], None]:
    """An edit of `config.json`, or of one of its sections, in a folder."""

    def edit(folder: Path, _: object) -> None:
        path = folder / "config.json"
        edit_json(path, **({section: {**read_json(path)[section], **changes}} if section else changes))

    return edit


def set_in_preprocessor(**changes: Any) -> Callable[[Path, object], None]:
    """An edit of `preprocessor_config.json` in a folder."""
    return lambda folder, _: edit_json(folder / "preprocessor_config.json", **changes)
