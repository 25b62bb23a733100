"""What a run leaves behind: the adapter with its model card, and a checkpoint that the server loads."""

from __future__ import annotations

import importlib.metadata
import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from florence2_server.engine.checkpoint.conversion import save
from florence2_server.engine.checkpoint.loading import Checkpoint
from peft import PeftModel

from training.finetune.model import TrainedModel, merged
from training.finetune.settings import Settings

_CONFIG = "config.json"
_READABLE_FILE = 0o644
_PACKAGES = ("torch", "transformers", "peft", "accelerate")
# What the card does not repeat: names of folders, and settings without an effect on the weights.
_NOT_ON_THE_CARD = {"checkpoint", "output", "merged", "resume", "workers", "threads", "device"}
_NOT_ON_THE_CARD |= {"format", "log_every", "feature_memory", "evaluate_every", "longest_answer"}
_OF_ADAPTERS = {"rank", "alpha", "dropout", "rslora", "initialization", "targets"}


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        measure: the name of the measure.
        before: its value for the base.
        after: its value for the best checkpoint.
        step: the best checkpoint's.
        training_examples, validation_examples: how many there were.
    """

    measure: str
    before: float | None
    after: float | None
    step: int
    training_examples: int
    validation_examples: int


def save_results(model: TrainedModel | PeftModel, checkpoint: Checkpoint, settings: Settings, result: Result) -> None:
    """Save the adapter or the checkpoint into the output folder, and the merged checkpoint.

    The model cannot be used any further if a checkpoint is saved.
    """
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "finetune.json").write_text(json.dumps({**asdict(settings), "result": asdict(result)}, indent=2) + "\n")
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = settings.checkpoint
        model.save_pretrained(str(folder), save_embedding_layers=False)
        for file in folder.glob("*.safetensors"):
            file.chmod(_READABLE_FILE)  # the library makes it readable by its owner only
        if settings.merged:
            save_checkpoint(model, checkpoint, Path(settings.merged))
    else:
        _save_into(model, checkpoint, folder)
    (folder / "README.md").write_text(model_card(settings, result))  # after peft's, which says nothing


def save_checkpoint(model: TrainedModel | PeftModel, checkpoint: Checkpoint, folder: Path) -> None:
    """Save the model, with its adapter merged, in the native layout.

    The weights are saved in float32, the dtype in which they were trained: a step of fine-tuning may be smaller than
    the base's own dtype can express.

    Args:
        model: cannot be used any further.
        checkpoint: the base.
        folder: must be new or empty.
    """
    untyped: Any = model
    untyped.to("cpu")
    save(replace(checkpoint, model=merged(model), saved_dtype=torch.float32), folder)


def _save_into(model: TrainedModel | PeftModel, checkpoint: Checkpoint, folder: Path) -> None:
    """Save a checkpoint into a folder that has other files; its `config.json` comes last."""
    with TemporaryDirectory(dir=folder, prefix=".checkpoint.") as scratch:
        whole = Path(scratch, "whole")
        save_checkpoint(model, checkpoint, whole)
        for file in sorted(whole.iterdir(), key=lambda file: file.name == _CONFIG):
            os.replace(file, folder / file.name)  # noqa: PTH105 - replaces the file of an earlier run


def model_card(settings: Settings, result: Result) -> str:
    """The README of the output folder: what was trained on what, with which result."""
    kind = "LoRA adapter for" if settings.method == "lora" else "full fine-tune of"
    library = "peft" if settings.method == "lora" else "transformers"
    left_out = _NOT_ON_THE_CARD | (_OF_ADAPTERS if settings.method == "full" else set())
    left_out |= {"epochs" if settings.steps else "steps"}
    shown = {each.name: getattr(settings, each.name) for each in fields(Settings) if each.name not in left_out}
    rows = [f"| {name} | {_cell(value)} |" for name, value in shown.items() if value not in ("", ())]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    before, after = (_cell(value) for value in (result.before, result.after))
    header = f"base_model: {json.dumps(settings.checkpoint)}\nlibrary_name: {library}\ntags: [florence-2, fine-tune]"
    examples = f"{result.training_examples} examples, evaluated on {result.validation_examples} others"
    title = f"# {Path(settings.output).resolve().name}\n\nA {kind} `{settings.checkpoint}`, trained on {examples}."
    figures = f"| | before | after {result.step} steps |\n|---|---|---|\n| {result.measure} | {before} | {after} |"
    table = "\n".join(["| Setting | Value |", "|---|---|", *rows])
    plot = "![Training and validation loss by step](loss.png)"
    sections = [title, f"## Result\n\n{figures}\n\n{plot}", f"## Settings\n\n{table}", f"Trained with {versions}."]
    return f"---\n{header}\n---\n\n" + "\n\n".join(sections) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
