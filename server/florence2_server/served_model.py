"""A checkpoint under the name by which callers reach it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from florence2_server import adapter_settings
from florence2_server.errors import ConfigError

DEFAULT_NAME = "florence2"
# The three Triton models of a served model: the unary one, which runs the engine, and the two that belong to it.
STREAM_SUFFIX = "_stream"
HEALTH_SUFFIX = "_health"
SUFFIXES = ("", STREAM_SUFFIX, HEALTH_SUFFIX)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint that is served under a name, with settings of its own.

    Attributes:
        name: the name of the Triton model; NAME_stream and NAME_health belong to it.
        settings: its own settings by name, e.g. `{"checkpoint": "owner/name", "slots": "8"}`. They take precedence over
            the environment's.

    Raises:
        ConfigError: the name cannot be a served model's.
    """

    name: str = DEFAULT_NAME
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"model: got the name {self.name!r}, expected at most 40 lower-case letters, digits, hyphens and "
                "underscores, the first of them a letter"
            )
        if self.name.endswith(SUFFIXES[1:]):
            raise ConfigError(
                f"model: got the name {self.name!r}, expected one that does not end with {' or '.join(SUFFIXES[1:])}"
            )


def served_models(checkpoints: Iterable[str], settings: Iterable[str]) -> tuple[ServedModel, ...]:
    """The served models that a command line or the environment describes.

    Args:
        checkpoints: `NAME=CHECKPOINT` for each model. If there are none, one model is served, `florence2`, with the
            checkpoint of FLORENCE2_CHECKPOINT. The relative path of a folder is relative to the working directory.
        settings: `NAME.SETTING=VALUE`; of two about the same setting, the last is used.

    Raises:
        ConfigError: a text has another form, a name is invalid or given twice, or there is no such model.
    """
    models: dict[str, dict[str, str]] = {}
    for text in checkpoints:
        name, checkpoint = _split("model", text, "NAME=CHECKPOINT")
        if name in models:
            raise ConfigError(f"model: got the name {name!r} twice, expected different names")
        models[name] = {"checkpoint": _absolute(checkpoint)}
    models = models or {DEFAULT_NAME: {}}
    for text in settings:
        target, value = _split("model setting", text, "NAME.SETTING=VALUE")
        name, dot, setting = target.partition(".")
        if not dot or not setting:
            raise ConfigError(f"model setting: got {text!r}, expected NAME.SETTING=VALUE")
        if name not in models:
            raise ConfigError(f"model setting: got {text!r}, expected one of the models {', '.join(models)}")
        models[name][setting] = _PATHS[setting](value) if setting in _PATHS else value
    return tuple(ServedModel(name, own) for name, own in models.items())


def _split(what: str, text: str, form: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals or not value:
        raise ConfigError(f"{what}: got {text!r}, expected {form}")
    return key, value


def _absolute(checkpoint: str) -> str:
    """A folder's absolute path, because that of a model's own settings is relative to the model's folder."""
    return str(Path(checkpoint).resolve()) if Path(checkpoint).is_dir() else checkpoint


# Settings that name folders.
_PATHS: Mapping[str, Callable[[str], str]] = {"checkpoint": _absolute, "adapters": adapter_settings.absolute}
