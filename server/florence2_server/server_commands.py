"""The commands `florence2-server serve` and `florence2-server repository`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from florence2_server.environment import VARIABLES
from florence2_server.errors import ConfigError
from florence2_server.repository import write_model
from florence2_server.served_model import served_models
from florence2_server.serving import serve
from florence2_server.startup import check_models

# The variables that `serve` has options for.
_SERVER_OPTIONS = ("ADDRESS", "HTTP_PORT", "GRPC_PORT", "METRICS_PORT", "HEALTH_PORT", "GRPC_HEALTH_PORT")


def serve_command(arguments: Sequence[str]) -> int:
    """Serve in the foreground until Ctrl-C or SIGTERM. Returns the exit status."""
    options = _serve_parser().parse_args(arguments)
    given = {f"FLORENCE2_{name}": getattr(options, name.lower()) for name in _SERVER_OPTIONS}
    overrides = {name: value for name, value in given.items() if value is not None}
    return serve(
        {**os.environ, **overrides},
        models=options.model,
        model_settings=options.set,
        repository=options.model_repository,
    )


def make_repository(arguments: Sequence[str]) -> int:
    """Write a model repository. Returns the exit status."""
    options = _repository_parser().parse_args(arguments)
    folder: Path = options.folder
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"folder: got {str(folder)!r}, expected a new or an empty folder")
        models = served_models(options.model, options.set)
        check_models(models, os.environ)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    for model in models:
        write_model(folder, model)
    return 0


def _repository_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="florence2-server repository",
        description="Write the model repository, for a tritonserver that is not started by this command: for each "
        "served model the configuration of three Triton models, and for each of these a model.py that imports this "
        "package. Triton's Python needs this package too.",
    )
    parser.add_argument("folder", type=Path, help="destination; must not exist, or be empty")
    _add_model_options(parser)
    return parser


def _serve_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="florence2-server serve",
        description="Serve Florence-2. The checkpoint is set by FLORENCE2_CHECKPOINT; default: the demo checkpoint. "
        "These options override the environment variables of the same name, such as FLORENCE2_HTTP_PORT.",
        epilog="Other commands: health, adapters list|load|unload, repository FOLDER, check CHECKPOINT, "
        "convert CHECKPOINT FOLDER, fetch CHECKPOINT FOLDER; each has --help.",
    )
    parser.add_argument(
        "--host", dest="address", help="address or host name to listen on; default: 127.0.0.1, this machine only"
    )
    for name in _SERVER_OPTIONS[1:]:
        default = VARIABLES[f"FLORENCE2_{name}"]
        parser.add_argument(f"--{name.lower().replace('_', '-')}", metavar="PORT", help=f"default: {default}")
    _add_model_options(parser)
    parser.add_argument(
        "--model-repository", type=Path, help="folder with the Triton models to serve; default: those of --model"
    )
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=CHECKPOINT",
        help="serve a checkpoint under this name; may be repeated. Default: one model, florence2",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.SETTING=VALUE",
        help="a model's own setting, such as captions.slots=8, which overrides FLORENCE2_SLOTS; may be repeated",
    )
