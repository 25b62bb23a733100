"""The limit on the length of a unix socket's path."""

import os
from pathlib import Path
from typing import Final

from florence2_server.errors import ConfigError

MOST_BYTES: Final = 107  # of the 108 of sun_path, unix(7), one ends the text


def check_length(path: Path, shorter: str) -> None:
    """Check that a unix socket can have a path.

    Args:
        path: the path.
        shorter: what a user can shorten.

    Raises:
        ConfigError: the path is too long.
    """
    length = len(os.fsencode(path))
    if length > MOST_BYTES:
        raise ConfigError(f"socket: got a path of {length} bytes, {path}, expected at most {MOST_BYTES}; use {shorter}")
