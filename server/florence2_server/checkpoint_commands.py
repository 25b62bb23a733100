"""`florence2-server check`, `convert` and `fetch`: inspect, convert or download a checkpoint.

Settings are those of the server: `FLORENCE2_...` environment variables.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from florence2_server.config import EngineConfig
from florence2_server.engine.errors import CheckpointError
from florence2_server.settings import ConfigError, config_of, setting_names, settings_for_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        config = engine_config(options.checkpoint)
        if options.command == "check":
            return _check(config, options.adapter)
        if options.command == "convert":
            _convert(config, options.folder)
        else:
            _fetch(config, options.folder)
    except (CheckpointError, ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0


def engine_config(checkpoint: str) -> EngineConfig:
    """The settings with which a server on this machine would serve the checkpoint.

    Raises:
        ConfigError: a setting is invalid.
    """
    settings = settings_for_model({"checkpoint": checkpoint}, os.environ, Path(), setting_names(EngineConfig))
    return config_of(EngineConfig, settings)


def _check(config: EngineConfig, adapters: Sequence[Path]) -> int:
    _quiet()
    # These import torch, which fetch does not need.
    from florence2_server.engine.adapters.inspection import inspect_adapter
    from florence2_server.engine.checkpoint.inspection import inspect

    report, checkpoint = inspect(config)
    reports = [report]
    if checkpoint is not None:
        reports += [inspect_adapter(folder, checkpoint, config) for folder in adapters]
    print("\n\n".join(map(str, reports)))  # noqa: T201 - a command's output
    return 1 if any(each.error for each in reports) else 0


def _convert(config: EngineConfig, folder: Path) -> None:
    _quiet()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from florence2_server.engine.checkpoint.conversion import convert

    convert(config, folder)


def _fetch(config: EngineConfig, folder: Path) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("florence2_server.engine").setLevel(logging.INFO)
    from florence2_server.engine.checkpoint.fetching import fetch

    fetch(config.checkpoint, folder, safetensors_only=bool(config.safetensors_only))


def _quiet() -> None:
    """Silence transformers; the report, or the error, contains what matters."""
    from transformers.utils import logging as transformers_logging

    transformers: Any = transformers_logging  # untyped
    transformers.disable_progress_bar()
    transformers.set_verbosity(logging.CRITICAL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="florence2-server", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    source = "a folder, owner/name or owner/name@revision"
    check = commands.add_parser(
        "check", help="report how a checkpoint and its adapters would be served; exit status 1 if one cannot be"
    )
    check.add_argument("checkpoint", help=source)
    check.add_argument(
        "--adapter",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="report what a LoRA adapter that peft has saved changes of this checkpoint; may be repeated",
    )
    convert = commands.add_parser("convert", help="write a checkpoint in transformers' native layout, as safetensors")
    convert.add_argument("checkpoint", help=source)
    convert.add_argument("folder", type=Path, help="destination; must be new or empty")
    fetch = commands.add_parser("fetch", help="download only the files that serving needs")
    fetch.add_argument("checkpoint", help="owner/name or owner/name@revision")
    fetch.add_argument("folder", type=Path, help="destination; files already there are kept")
    return parser
