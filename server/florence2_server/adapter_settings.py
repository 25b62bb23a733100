"""The text of the setting `adapters`."""

import os
from collections.abc import Callable
from pathlib import Path

from florence2.adapter_names import ADAPTER_NAME_RULE, is_adapter_name

from florence2_server.errors import ConfigError

# The file by which a folder is known to be an adapter that peft has saved.
ADAPTER_FILE = "adapter_config.json"
_FORM = "a folder of adapters, or NAME=FOLDER-or-hub-id pairs separated by commas"


def is_folder(source: str | Path) -> bool:
    """Whether a folder has this name. False if it cannot be read, or if the name is too long for a path."""
    try:
        return Path(source).is_dir()
    except OSError:
        return False


def check_encoding(text: str) -> None:
    """Check that paths are UTF-8, as they are in messages.

    Raises:
        ConfigError: a name of a folder has other bytes.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"adapters: got {text!r}, expected UTF-8") from None


def parse_pair(text: str) -> tuple[str, str]:
    """The name and the source of `NAME=FOLDER-or-hub-id`.

    Raises:
        ConfigError: it has another form, or an adapter cannot have the name.
    """
    check_encoding(text)
    name, equals, source = text.strip().partition("=")
    if not equals or not source:
        raise ConfigError(f"adapters: got {text.strip()!r}, expected {_FORM}")
    if not is_adapter_name(name):
        raise ConfigError(f"adapters: got the name {name!r}, expected {ADAPTER_NAME_RULE}")
    return name, source


def parse_pairs(text: str) -> dict[str, str]:
    """The sources of `NAME=SOURCE` pairs that are separated by commas, by name.

    Raises:
        ConfigError: a pair has another form, an adapter cannot have its name, or a name is given twice.
    """
    pairs: dict[str, str] = {}
    for pair in text.split(","):
        name, source = parse_pair(pair)
        if name in pairs:
            raise ConfigError(f"adapters: got the name {name!r} twice, expected different names")
        pairs[name] = source
    return pairs


def relative_to(text: str, folder: Path) -> str:
    """The setting with the paths of folders that exist in `folder` instead of paths relative to it."""

    def resolved(source: str) -> str:
        found = folder / source
        return os.fspath(found) if is_folder(found) else source

    return _with_sources(text, resolved)


def absolute(text: str) -> str:
    """The setting with the absolute paths of folders that exist in the working directory."""
    return _with_sources(text, lambda source: os.fspath(Path(source).resolve()) if is_folder(source) else source)


def _with_sources(text: str, change: Callable[[str], str]) -> str:
    """The setting after a change of its folder, or of each pair's source. One of another form stays as it is."""
    if not text:
        return text
    if (changed := change(text)) != text:
        return changed
    parts = [pair.partition("=") for pair in text.split(",")]
    return ",".join(f"{name}{equals}{change(source) if source else source}" for name, equals, source in parts)
