"""Functions for typer, which reads a command's options from a signature, put together from groups of options."""

import inspect
from collections.abc import Callable
from typing import Any

from florence2.cli.exits import CommandError
from florence2.cli.option_groups import Group
from florence2.errors import InvalidArgumentError


def with_options(command: Callable[..., int], *groups: Group) -> Callable[..., int]:
    """A function with the parameters of all groups as keywords.

    Calls each group with its own parameters, and `command` with what the groups return, in their order.
    """
    names = [list(inspect.signature(group).parameters) for group in groups]

    def function(**values: Any) -> int:
        try:
            given = [group(**{name: values[name] for name in own}) for group, own in zip(groups, names, strict=True)]
        except InvalidArgumentError as error:
            raise CommandError(str(error)) from error
        return command(*given)

    parameters = [each for group in groups for each in inspect.signature(group).parameters.values()]
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    function.__signature__ = inspect.Signature(keywords, return_annotation=int)  # type: ignore[attr-defined]
    function.__annotations__ = {}  # typer evaluates these, too
    return function
