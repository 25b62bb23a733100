"""Packages that only bulk runs need, imported on first use."""

import importlib
from typing import Any

from florence2.errors import Florence2Error


class MissingPackageError(Florence2Error, ImportError):
    """A package that this run needs is not installed. The message says how to install it."""


def load_package(name: str) -> Any:
    """Import a package of the extra `bulk`.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingPackageError(
            f'bulk runs need the package {package}; run `pip install "florence2-triton[bulk]"` ({error})'
        ) from error
