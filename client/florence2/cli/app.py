"""The commands for images as a typer app. `florence2.cli.task_commands` has the table of tasks."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Any, Final

import typer

from florence2 import v1
from florence2.cli.exits import INTERRUPTED, MISUSED, SUCCEEDED, CommandError
from florence2.cli.health_stand_in import health_stand_in
from florence2.cli.option_groups import (
    AdapterOption,
    Images,
    ItemOptions,
    OutputOptions,
    ServerOptions,
    generation_options,
)
from florence2.cli.running import Run
from florence2.cli.server_command import server
from florence2.cli.signatures import with_options
from florence2.cli.task_commands import COMMANDS, TaskCommand
from florence2.cli.web_command import web
from florence2.options import TaskOptions

_NAME: Final = "florence2"
_COMPLETION: Final = "_FLORENCE2_COMPLETE"
_BULK: Final = "florence2.cli.bulk_command"
_EPILOG: Final = "Exit status: 0 all answered, 1 some failed, 2 wrong usage, 3 no server."


def run(arguments: Sequence[str]) -> int:
    """Run a command. Returns its exit status.

    Raises:
        CommandError: the command line is wrong, or the command cannot go on.
        KeyboardInterrupt, BrokenPipeError: unchanged.
    """
    # Without a command, the help is shown, unless a shell completes a line, which it passes in the environment.
    is_misused = not arguments and _COMPLETION not in os.environ
    command = typer.main.get_command(make_app(is_terminal=sys.stdout is not None and sys.stdout.isatty()))
    try:
        status = command.main(["--help"] if is_misused else list(arguments), prog_name=_NAME, standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as ended:  # typer's for an output that nobody reads
        if isinstance(ended.__context__, BrokenPipeError):
            raise ended.__context__ from None
        raise
    except typer.TyperException as error:
        raise CommandError(_usage_error(error), error.exit_code) from error
    return MISUSED if is_misused else int(status or SUCCEEDED)


def make_app(*, is_terminal: bool) -> typer.Typer:
    """The app. Its help has colors and panels only on a terminal."""
    app = typer.Typer(
        name=_NAME,
        rich_markup_mode="rich" if is_terminal else None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=_EPILOG,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for command in COMMANDS:
        app.command(command.name, help=command.request.__doc__)(_function(command))
    _add_bulk(app)
    app.command("web")(web)
    app.command("server", help="Show what servers serve: checkpoint, device, adapters.")(
        with_options(server, ServerOptions, _json_option)
    )
    app.command("health", help="Check that a server is alive, or ready, for probes.")(health_stand_in)
    return app


def _version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"florence2-triton {version('florence2-triton')}")
        raise typer.Exit


def _root(
    is_version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Florence-2 on Triton: captions, objects, outlines and text of images."""


def _function(command: TaskCommand) -> Any:
    groups: list[Any] = [Images, command.request, ServerOptions, AdapterOption, OutputOptions, generation_options]

    def run_on_images(
        images: Images,
        request: v1.TaskRequest,
        server: ServerOptions,
        adapter: AdapterOption,
        output: OutputOptions,
        generation: TaskOptions,
        items: ItemOptions = ItemOptions(),  # noqa: B008  # frozen
    ) -> int:
        return Run(images.images, request, server, adapter.adapter, output, generation, items, command.columns).run()

    return with_options(run_on_images, *groups, *([ItemOptions] if command.has_filters else []))


def _json_option(
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each server.")] = False,
) -> bool:
    return json


def _add_bulk(app: typer.Typer) -> None:
    """Register `florence2 bulk`, which has a module of its own."""
    if find_spec(_BULK) is not None:
        app.command("bulk")(import_module(_BULK).bulk)


def _usage_error(error: typer.TyperException) -> str:
    """An error of the command line in one line, with the command whose help explains it."""
    context = getattr(error, "ctx", None)
    path = _NAME if context is None else context.command_path
    return f"{error.format_message()} (see {path} --help)"
