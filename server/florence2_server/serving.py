"""One way to start a server, for the command and for the images: settings, checks, then tritonserver."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from florence2_server.addresses import check_listeners
from florence2_server.environment import check_environment
from florence2_server.errors import ConfigError
from florence2_server.flags import check_arguments, flags
from florence2_server.foreground import run
from florence2_server.server_settings import ServerSettings
from florence2_server.startup import check_models, models_in
from florence2_server.tritonserver import STOP_SECONDS, StartError, TritonServer, has_gpu

# The folder into which the build argument CHECKPOINT puts a checkpoint.
BAKED_CHECKPOINT = Path("/opt/florence2/checkpoint")

_LOOPBACK = {"FLORENCE2_ADDRESS": "127.0.0.1"}
_KEY = "FLORENCE2_RESTRICTED_PROTOCOL_KEY"


def serve(
    environment: Mapping[str, str],
    *,
    is_image: bool = False,
    models: Sequence[str] = (),
    model_settings: Sequence[str] = (),
    repository: Path | None = None,
    arguments: Sequence[str] = (),
) -> int:
    """Serve in the foreground until Ctrl-C or SIGTERM. A mistake in the settings is reported in one line.

    Args:
        environment: the environment variables.
        is_image: whether this is one of the images, which listen on all addresses, need a checkpoint, and close
            administrative calls.
        models: `NAME=CHECKPOINT` for each served model; default: those of the environment.
        model_settings: `NAME.SETTING=VALUE`, which take precedence over those of the environment.
        repository: a model repository to serve instead of the served models.
        arguments: further flags of tritonserver.

    Returns:
        The exit status.
    """
    try:
        environment = dict(environment)
        server = _prepared(environment, is_image, models, model_settings, repository, arguments)
        return run(server)
    except (ConfigError, StartError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's output
        return 1


def _prepared(
    environment: dict[str, str],
    is_image: bool,
    models: Sequence[str],
    model_settings: Sequence[str],
    repository: Path | None,
    arguments: Sequence[str],
) -> TritonServer:
    """Check everything that can be checked before the start. Returns a server that has not been started.

    Raises:
        ConfigError: a setting is invalid.
    """
    check_environment(environment)
    check_arguments(arguments)
    settings = ServerSettings(environment, {} if is_image else _LOOPBACK)
    if repository:
        _check_models_are_unset(settings, [*models, *model_settings])
    if settings.number("REQUIRE_GPU", 0, 1) and not has_gpu():
        raise ConfigError("FLORENCE2_REQUIRE_GPU: no NVIDIA GPU is visible to this container")
    if is_image and not settings.text("MODELS"):
        environment["FLORENCE2_CHECKPOINT"] = image_checkpoint(environment)
    folders = models_of(repository) if repository else ()
    served = () if repository else settings.served_models(models, model_settings)
    check_models([*served, *models_in(folders)], environment)
    hosts, ports = settings.hosts, settings.ports
    triton_flags = [*flags(settings, is_closed=is_image), *arguments]
    check_listeners(hosts, ports)
    return TritonServer(
        ports,
        {**environment, _KEY: ""},  # the engine does not need it
        hosts=hosts,
        models=served,
        folders=folders,
        flags=triton_flags,
        stop_seconds=settings.number("EXIT_TIMEOUT_SECONDS", 0, 86_400) + STOP_SECONDS,
    )


def _check_models_are_unset(settings: ServerSettings, options: Sequence[str]) -> None:
    """Check that nothing describes models beside a model repository, which would be ignored.

    Raises:
        ConfigError: options or variables do.
    """
    variables = [f"FLORENCE2_{name}" for name in ("MODELS", "MODEL_SETTINGS") if settings.text(name)]
    if given := [*(["--model or --set"] if options else []), *variables]:
        raise ConfigError(
            f"--model-repository: got {' and '.join(given)} too; models are set in the repository's config.pbtxt"
        )


def image_checkpoint(environment: Mapping[str, str]) -> str:
    """The checkpoint that an image serves.

    Raises:
        ConfigError: no checkpoint is configured and none is in the image. The demo checkpoint, the default elsewhere,
            must not be served in production by mistake.
    """
    if environment.get("FLORENCE2_CHECKPOINT"):
        return environment["FLORENCE2_CHECKPOINT"]
    if (BAKED_CHECKPOINT / "config.json").is_file():
        return os.fspath(BAKED_CHECKPOINT)
    raise ConfigError("FLORENCE2_CHECKPOINT: not set, and this image has no checkpoint; name a folder or a hub id")


def models_of(repository: Path) -> tuple[Path, ...]:
    """The folders of a repository's models.

    Raises:
        ConfigError: there are no models.
    """
    models = tuple(sorted(config.parent.resolve() for config in repository.glob("*/config.pbtxt")))
    if not models:
        raise ConfigError(f"--model-repository: got {str(repository)!r}, expected a folder with */config.pbtxt")
    return models
