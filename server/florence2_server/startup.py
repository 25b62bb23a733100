"""What is checked before tritonserver is started, so that a mistake is the only line of output."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from florence2_server.adapter_settings import relative_to
from florence2_server.config import EngineConfig
from florence2_server.engine.checkpoint.files import find, hub_id
from florence2_server.engine.errors import CheckpointError
from florence2_server.environment import CONFIGS
from florence2_server.errors import ConfigError
from florence2_server.served_model import ServedModel
from florence2_server.settings import config_of, setting_names, settings_for_model

_IMPLEMENTATION = "florence2_server.stub.triton_model"


def check_models(models: Sequence[ServedModel], environment: Mapping[str, str]) -> None:
    """Check all settings of the models, and that their checkpoints exist if they are local folders.

    Args:
        models: the models to serve.
        environment: has the settings that are not the models' own.

    Raises:
        ConfigError: a setting is invalid, or a folder is no checkpoint.
    """
    for model in models:
        try:
            _check_model(model.settings, environment)
        except (ConfigError, CheckpointError) as error:
            name = f"model {model.name!r}: " if len(models) > 1 or model.settings else ""
            raise ConfigError(f"{name}{error}") from None


def _check_model(own: Mapping[str, str], environment: Mapping[str, str]) -> None:
    # A relative path among the own settings is already the path from the working directory.
    settings = settings_for_model(own, environment, Path(), setting_names(*CONFIGS))
    for config_type in CONFIGS:
        config = config_of(config_type, settings)
        if isinstance(config, EngineConfig):
            _check_checkpoint(config)


def _check_checkpoint(config: EngineConfig) -> None:
    try:
        if Path(config.checkpoint).is_dir():
            find(config.checkpoint, safetensors_only=bool(config.safetensors_only)).json("config.json")
        else:
            hub_id(config.checkpoint)
    except (CheckpointError, OSError) as error:
        raise CheckpointError(f"checkpoint {config.checkpoint!r}: {error}") from None


def models_in(folders: Sequence[Path]) -> Iterator[ServedModel]:
    """The served models among the folders of Triton models, with their own settings.

    Raises:
        ConfigError: a configuration cannot be read.
    """
    for folder in folders:
        code = folder / "1" / "model.py"
        if code.is_file() and _IMPLEMENTATION in code.read_text():
            yield ServedModel(folder.name, own_settings(folder))


def own_settings(folder: Path) -> dict[str, str]:
    """A model's own settings: the `parameters` of its configuration, with absolute paths of checkpoint and adapters.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    messages: Any = model_config_pb2  # untyped
    config = folder / "config.pbtxt"
    try:
        parsed = text_format.Parse(config.read_text(), messages.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ConfigError(f"{config}: {' '.join(str(error).split())}") from None
    settings = {name: str(value.string_value) for name, value in parsed.parameters.items()}
    bundled = folder / settings.get("checkpoint", "")
    if "checkpoint" in settings and bundled.is_dir():
        settings["checkpoint"] = os.fspath(bundled.resolve())
    if "adapters" in settings:
        settings["adapters"] = relative_to(settings["adapters"], folder.resolve())
    return settings
