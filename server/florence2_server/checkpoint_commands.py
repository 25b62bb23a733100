"""`python -m florence2_engine.checkpoint`: inspect, convert or fetch a checkpoint.

The settings are the server's: the parameters of its `config.pbtxt`, overridden by `FLORENCE2_...` in the environment.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from florence2_engine.config import EngineConfig
from florence2_engine.errors import CheckpointError
from florence2_engine.settings import ConfigError, config_of, setting_names, settings_for_model

MODEL = Path(__file__).resolve().parents[3]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        config = engine_config(options.checkpoint)
        if options.command == "check":
            return _check(config)
        if options.command == "convert":
            _convert(config, options.folder)
        else:
            _fetch(config, options.folder)
    except (CheckpointError, ConfigError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0


def engine_config(checkpoint: str) -> EngineConfig:
    """The settings of a server that serves this checkpoint on this machine.

    Raises:
        ConfigError: one of them is invalid.
    """
    messages: Any = model_config_pb2  # without types
    model_config = text_format.Parse((MODEL / "config.pbtxt").read_text(), messages.ModelConfig())
    names = setting_names(EngineConfig)
    parameters = {name: model_config.parameters[name].string_value for name in names if name in model_config.parameters}
    settings = settings_for_model(parameters, os.environ, MODEL, names)
    return config_of(EngineConfig, {**settings, "checkpoint": checkpoint})


def _check(config: EngineConfig) -> int:
    _quiet()
    from florence2_engine.checkpoint.inspection import inspect  # not needed by fetch, and imports torch

    report = inspect(config)
    print(report)  # noqa: T201 - a command's output
    return 1 if report.refusal else 0


def _convert(config: EngineConfig, folder: Path) -> None:
    _quiet()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from florence2_engine.checkpoint.conversion import convert

    convert(config, folder)


def _fetch(config: EngineConfig, folder: Path) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("florence2_engine").setLevel(logging.INFO)
    from florence2_engine.checkpoint.fetching import fetch

    fetch(config.checkpoint, folder, safetensors_only=bool(config.safetensors_only))


def _quiet() -> None:
    """Silence transformers: the report or the error says what matters."""
    from transformers.utils import logging as transformers_logging

    transformers: Any = transformers_logging  # without types
    transformers.disable_progress_bar()
    transformers.set_verbosity(logging.CRITICAL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="serve.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    source = "a folder, owner/name or owner/name@revision"
    check = commands.add_parser(
        "check", help="report what would be served, and anything surprising; exit status 1 if it is refused"
    )
    check.add_argument("checkpoint", help=source)
    convert = commands.add_parser("convert", help="write it in transformers' native layout, as safetensors")
    convert.add_argument("checkpoint", help=source)
    convert.add_argument("folder", type=Path, help="destination; must not exist, or be empty")
    fetch = commands.add_parser("fetch", help="download the files that serving needs, and no others")
    fetch.add_argument("checkpoint", help="owner/name or owner/name@revision")
    fetch.add_argument("folder", type=Path, help="destination; files already there are kept")
    return parser


if __name__ == "__main__":
    sys.exit(main())
