"""The settings of a run: defaults, a recipe file, the command line."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from training.finetune.errors import SettingError

RECIPES = Path(__file__).parent / "recipes"

_DESCRIPTION = (
    "Fine-tune a Florence-2 checkpoint on your own examples (training/finetune/README.md). The command line, or the "
    "recipe, has to give --checkpoint, --data, --validation and --output."
)
_CHOICES = {
    "format": ("auto", "jsonl", "coco", "folder"),
    "measure": ("auto", "exact", "anls", "f1", "loss"),
    "method": ("lora", "full"),
    "initialization": ("default", "gaussian"),
    "schedule": ("linear", "cosine", "constant"),
    "precision": ("float32", "bfloat16", "float16"),
    "device": ("auto", "cpu"),
}
_REQUIRED = ("checkpoint", "data", "validation", "output")
_POSITIVE = ("rank", "alpha", "epochs", "batch", "accumulate", "learning_rate", "beams", "longest_answer", "log_every")
_NOT_NEGATIVE = ("steps", "warmup_steps", "weight_decay", "clip", "evaluate_every", "workers", "threads")


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """All settings of a run. The help of the command line describes each."""

    checkpoint: str = _setting("", "the base: a folder, owner/name or owner/name@revision, in either layout")
    data: str = _setting("", "training data: a JSONL file, a COCO detection file, or a folder of images and texts")
    validation: str = _setting("", "validation data in the same form, or the fraction of the images to set aside: 0.1")
    output: str = _setting("", "folder for the adapter, or with --method full for the checkpoint")
    merged: str = _setting("", "folder for a checkpoint into which the adapter is merged; must be new or empty")
    format: str = _setting("auto", "form of the data; auto: by the name of the file")
    prompt: str = _setting("", "prompt for data without prompts; by default <OD> for COCO, <CAPTION> for a folder")
    classes: tuple[str, ...] = _setting((), "COCO categories to learn; the others are left out; default: all")
    measure: str = _setting("auto", "measure of the best checkpoint; auto: f1 for boxes, loss for captions, else exact")
    beams: int = _setting(1, "beams of the search in evaluations")
    longest_answer: int = _setting(256, "tokens after which an answer is cut off in evaluations")
    method: str = _setting("lora", "lora: train an adapter; full: train all weights")
    rank: int = _setting(8, "rank of the adapter's matrices")
    alpha: int = _setting(8, "the adapter is scaled by alpha / rank; with --rslora by alpha / sqrt(rank)")
    dropout: float = _setting(0.05, "dropout in front of the adapter")
    rslora: bool = _setting(False, "rank-stabilized scaling")
    initialization: str = _setting("default", "of the adapter's first matrix: as peft does, or gaussian")
    targets: tuple[str, ...] = _setting(
        ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"), "last parts of the names of the adapted layers"
    )
    freeze_vision: bool = _setting(False, "leave the vision tower and its projection as they are")
    epochs: float = _setting(10.0, "passes over the training data; --steps takes precedence")
    steps: int = _setting(0, "optimizer steps; 0: as many as --epochs needs")
    batch: int = _setting(8, "examples per device and step")
    accumulate: int = _setting(1, "batches whose gradients are added up for an optimizer step")
    learning_rate: float = _setting(1e-4, "peak learning rate of AdamW")
    schedule: str = _setting("linear", "of the learning rate after the warm-up")
    warmup_steps: int = _setting(0, "steps until the peak learning rate")
    weight_decay: float = _setting(0.01, "of AdamW")
    clip: float = _setting(1.0, "maximum norm of the gradients; 0: no limit")
    precision: str = _setting("float32", "of the computation; weights are float32")
    seed: int = _setting(0, "of the split, the order of the examples, the adapter and dropout")
    evaluate_every: int = _setting(0, "steps between evaluations, each of which saves a checkpoint; 0: every epoch")
    log_every: int = _setting(10, "steps between log lines and between points of the loss plot")
    feature_memory: float = _setting(8.0, "gigabytes for the embeddings of a frozen vision tower; 0: never keep them")
    workers: int = _setting(0, "processes that decode images; at most one per CPU core is started")
    device: str = _setting("auto", "auto: all GPUs that accelerate assigns; cpu")
    threads: int = _setting(0, "CPU threads; 0: torch's default")
    resume: bool = _setting(False, "continue from the last complete checkpoint in --output, if there is one")

    def __post_init__(self) -> None:
        for name in _REQUIRED:
            if not getattr(self, name):
                raise SettingError(name, "", "a value, from the command line or the recipe")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(name, getattr(self, name), f"one of {', '.join(choices)}")
        for name in (*_POSITIVE, *_NOT_NEGATIVE, "feature_memory"):
            value, is_positive = getattr(self, name), name in _POSITIVE
            if not (value > 0 or (value == 0 and not is_positive)):
                raise SettingError(name, value, "a number above 0" if is_positive else "a number of at least 0")
        if not 0 <= self.dropout < 1:
            raise SettingError("dropout", self.dropout, "a number from 0 to below 1")
        if self.method == "full" and self.merged:
            raise SettingError("merged", self.merged, "no folder: the output of method full is a whole checkpoint")
        if not self.targets:
            raise SettingError("targets", self.targets, "at least one name")

    @property
    def validation_fraction(self) -> float | None:
        """The fraction of the images that is set aside; None if the validation data is a file or a folder.

        Raises:
            SettingError: the fraction is not between 0 and 1.
        """
        try:
            fraction = float(self.validation)
        except ValueError:
            return None
        if not 0 < fraction < 1:
            raise SettingError("validation", self.validation, "a file, a folder, or a fraction between 0 and 1")
        return fraction


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """The settings of a command line, over those of the recipe that it names.

    Raises:
        SettingError: a setting is missing or wrong.
    """
    given = vars(_parser().parse_args(arguments))
    recipe = given.pop("recipe", None)
    values = read_recipe(recipe) if recipe else {}
    values |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return Settings(**values)


def read_recipe(name: str) -> dict[str, Any]:
    """The settings in a recipe: one of `recipes/`, by its name, or any TOML file.

    Raises:
        SettingError: there is no such recipe, or it has an unknown setting or one of the wrong type.
    """
    path = RECIPES / f"{name}.toml" if (RECIPES / f"{name}.toml").is_file() else Path(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.toml")))
        raise SettingError("recipe", name, f"a TOML file, or one of {known}") from None
    except ValueError as error:
        raise SettingError("recipe", name, f"TOML ({error})") from None
    return _typed(content, path.name)


def _typed(content: Mapping[str, Any], file: str) -> dict[str, Any]:
    known = {each.name: each for each in fields(Settings)}
    values = {}
    for name, value in content.items():
        if name not in known:
            raise SettingError(f"{file}: {name}", value, f"a known setting ({', '.join(sorted(known))})")
        values[name] = _converted(known[name], value, file)
    return values


def _converted(setting: Field[Any], value: Any, file: str) -> Any:
    default = setting.default
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(default):
        return value
    kind = "a list of strings" if isinstance(default, tuple) else f"a value of type {type(default).__name__}"
    raise SettingError(f"{file}: {setting.name}", value, kind)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.finetune", description=_DESCRIPTION)
    parser.add_argument("--recipe", default=argparse.SUPPRESS, help="name of a recipe, or a TOML file of settings")
    for each in fields(Settings):
        default = each.default
        assert default is not MISSING, "every setting has a default"
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": each.metadata["help"]}
        if isinstance(default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(default, tuple):
            options |= {"nargs": "+", "metavar": "NAME"}
        else:
            options |= {"type": type(default), "choices": _CHOICES.get(each.name)}
        if default not in ("", (), False):
            shown = " ".join(default) if isinstance(default, tuple) else default
            options["help"] += f" (default: {shown})"
        parser.add_argument(f"--{each.name.replace('_', '-')}", **options)
    return parser
