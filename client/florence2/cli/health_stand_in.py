"""`florence2 health` in the help and in completion. `florence2.cli.main` runs the command itself, without typer."""

import argparse
import inspect
from typing import Annotated, Any

import typer

from florence2.cli.health import parser


def health_stand_in(**options: Any) -> int:
    """Never called."""
    raise AssertionError(f"health with {options} is run without typer")


def _parameter(action: argparse.Action) -> inspect.Parameter:
    is_flag = action.nargs == 0
    info = typer.Option(*action.option_strings, help=(action.help or "") % vars(action))
    value_type: Any = bool if is_flag else str | None
    default = False if is_flag else None
    return inspect.Parameter(
        action.dest, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[value_type, info]
    )


health_stand_in.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # where inspect looks for it
    [_parameter(action) for action in parser()._actions if action.dest != "help"]
)
health_stand_in.__annotations__ = {}
