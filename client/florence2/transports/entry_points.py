"""Transports that other packages provide, found by name through package metadata."""

from importlib.metadata import entry_points
from typing import Any

from florence2.errors import Florence2Error

_GROUP = "florence2.transports"
_PROVIDERS = {"in_process": "florence2-triton-server"}


class TransportNotFoundError(Florence2Error, LookupError):
    """No installed package provides a transport of that name."""


def load_transport(name: str) -> Any:
    """The transport that an installed package registers under a name.

    A package registers one in its `pyproject.toml`:

        [project.entry-points."florence2.transports"]
        in_process = "florence2_server.in_process:InProcess"

    Args:
        name: e.g. `"in_process"`, which `florence2-triton-server` provides.

    Returns:
        What the entry point refers to: a class, or a function, that returns a `Transport` when called. Its package
        documents the arguments.

    Raises:
        TransportNotFoundError: no installed package provides it. The message names the package to install, if known.
        ImportError: a dependency of the package that provides it is missing.
    """
    for entry_point in entry_points(group=_GROUP, name=name):
        return entry_point.load()
    raise TransportNotFoundError(f"transport: got {name!r}, expected {_expectation(name)}")


def _expectation(name: str) -> str:
    if name in _PROVIDERS:
        return f"it to be installed; run `pip install {_PROVIDERS[name]}`"
    installed = sorted(entry_points(group=_GROUP).names)
    return f"one of the installed transports ({', '.join(installed) or 'none'})"
