"""Reads settings, which are strings in Triton's `parameters` and in the environment, into frozen dataclasses."""

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from math import isfinite, nan
from pathlib import Path
from typing import Any, TypeVar

from florence2_server.adapter_settings import relative_to
from florence2_server.errors import ConfigError as ConfigError
from florence2_server.repository import DEMO_CHECKPOINT

ENVIRONMENT_PREFIX = "FLORENCE2_"

_Config = TypeVar("_Config")


def settings_for_model(
    parameters: Mapping[str, str], environment: Mapping[str, str], model_folder: Path, names: Iterable[str]
) -> dict[str, str]:
    """The settings of one served model: its own, and for all others the environment's `FLORENCE2_<SETTING>`.

    Among its own, a relative path of a checkpoint or of adapters is relative to the model's folder; in the environment,
    it is relative to the working directory. If neither names a checkpoint, it is the demo checkpoint.

    Args:
        parameters: the `parameters` of the Triton model's configuration, which are the model's own settings.
        environment: the environment of the process; an empty variable counts as unset.
        model_folder: the Triton model's folder in the model repository.
        names: the names of all settings.

    Raises:
        ConfigError: a parameter is not a setting.
    """
    names = list(names)
    for name in parameters:
        if name not in names:
            raise ConfigError(f"{name}: no such setting, did you mean {nearest(name, names)}?")
    own = dict(parameters)
    bundled = model_folder / own.get("checkpoint", "")
    if "checkpoint" in own and bundled.is_dir():
        own["checkpoint"] = os.fspath(bundled)
    if "adapters" in own:
        own["adapters"] = relative_to(own["adapters"], model_folder)
    variables = {name: environment.get(ENVIRONMENT_PREFIX + name.upper()) for name in names}
    shared = {name: value for name, value in variables.items() if value}
    default = {"checkpoint": os.fspath(DEMO_CHECKPOINT)} if "checkpoint" in names else {}
    return {**default, **shared, **own}


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most similar to a misspelled one."""
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def setting_names(*config_types: type[Any]) -> list[str]:
    """The names of these dataclasses' settings, without repetitions."""
    return list(dict.fromkeys(field.name for config_type in config_types for field in fields(config_type)))


def config_of(config_type: type[_Config], settings: Mapping[str, str]) -> _Config:
    """Read a dataclass from those of the settings that belong to it.

    Raises:
        ConfigError: a value is not a number or is out of range.
    """
    values: dict[str, Any] = {}
    for field in fields(config_type):  # type: ignore[arg-type]  # a dataclass
        if (text := settings.get(field.name)) is not None:
            values[field.name] = _PARSERS[field.type](field.name, text)
    return config_type(**values)


def require_at_least(least: int, config: object, *names: str) -> None:
    """Check the minimum of settings.

    Raises:
        ConfigError: a setting is below it.
    """
    for name in names:
        if getattr(config, name) < least:
            raise ConfigError(f"{name}: got {getattr(config, name)}, expected at least {least}")


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}: got {text!r}, expected a whole number") from None


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise ConfigError(f"{name}: got {text!r}, expected a number")
    return number


_PARSERS: Mapping[Any, Callable[[str, str], Any]] = {int: _whole_number, float: _number, str: lambda _, text: text}
