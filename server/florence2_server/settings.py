"""Settings in words, as Triton's `parameters` and the environment have them, to frozen dataclasses."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

ENVIRONMENT_PREFIX = "FLORENCE2_"

_Config = TypeVar("_Config")


class ConfigError(ValueError):
    """A setting cannot be used. The message names the setting, the value and the limit."""


def settings_for_model(
    parameters: Mapping[str, str], environment: Mapping[str, str], model_folder: Path, names: Iterable[str]
) -> dict[str, str]:
    """The settings of one Triton model: its `parameters`, overridden by `FLORENCE2_<SETTING>` in the environment.

    A relative checkpoint of the parameters lies in the model's folder; one of the environment is the caller's path.

    Args:
        parameters: of the model's config.
        environment: of the process.
        model_folder: where the model is.
        names: of all settings that there are.

    Raises:
        ConfigError: a parameter that is no setting.
    """
    names = list(names)
    for name in parameters:
        if name not in names:
            raise ConfigError(f"{name}: no such setting; there are {', '.join(names)}")
    settings = dict(parameters)
    bundled = model_folder / settings.get("checkpoint", "")
    if "checkpoint" in settings and bundled.is_dir():
        settings["checkpoint"] = os.fspath(bundled)
    for name in names:
        if override := environment.get(ENVIRONMENT_PREFIX + name.upper()):
            settings[name] = override
    return settings


def setting_names(*config_types: type[Any]) -> list[str]:
    """The settings that these dataclasses have; one may be of interest to several."""
    return list(dict.fromkeys(field.name for config_type in config_types for field in fields(config_type)))


def config_of(config_type: type[_Config], settings: Mapping[str, str]) -> _Config:
    """The dataclass with those of the settings that are its own.

    Raises:
        ConfigError: a number that is none, or a value out of range.
    """
    values: dict[str, Any] = {}
    for field in fields(config_type):  # type: ignore[arg-type]  # a dataclass
        if (text := settings.get(field.name)) is not None:
            values[field.name] = _whole_number(field.name, text) if field.type is int else text
    return config_type(**values)


def require_at_least(least: int, config: object, *names: str) -> None:
    """Refuse settings below a limit.

    Raises:
        ConfigError: one is.
    """
    for name in names:
        if getattr(config, name) < least:
            raise ConfigError(f"{name}: got {getattr(config, name)}, expected at least {least}")


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}: got {text!r}, expected a whole number") from None
