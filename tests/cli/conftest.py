"""The fixture `florence2`, which runs a command."""

from tests.cli.commands import florence2

__all__ = ["florence2"]
