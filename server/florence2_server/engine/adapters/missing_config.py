"""Folders and repositories without an adapter's config: what is in them instead, and how to serve that."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from florence2_server.engine.adapters.adapter_config import CONFIG_FILE

_CHECKPOINT_CONFIG = "config.json"
_DEEPEST = 3  # folders between a training run and its adapters, such as `1/checkpoints/best`
_MOST_FOLDERS = 3


def explain_folder(folder: Path) -> str:
    """Why there is no adapter directly in a folder."""
    patterns = ("*/" * depth + CONFIG_FILE for depth in range(1, _DEEPEST + 1))
    found = [path for pattern in (_CHECKPOINT_CONFIG, *patterns) for path in folder.glob(pattern)]
    return explain_names([path.relative_to(folder).as_posix() for path in found])


def explain_names(names: Collection[str]) -> str:
    """Why there is no adapter among files with these paths, which are relative to what was named as an adapter."""
    missing = f"{CONFIG_FILE} is missing"
    if folders := _by_number(name.removesuffix(CONFIG_FILE) for name in names if name.endswith(f"/{CONFIG_FILE}")):
        others = f" and {len(folders) - _MOST_FOLDERS} more" if len(folders) > _MOST_FOLDERS else ""
        shown = ", ".join(folders[-_MOST_FOLDERS:])
        return f"{missing}, but there is one in {shown}{others}: give the path of that folder"
    if _CHECKPOINT_CONFIG in names:
        return f"{missing}, but there is a {_CHECKPOINT_CONFIG}: serve a whole checkpoint with FLORENCE2_CHECKPOINT"
    return missing


def _by_number(folders: Iterable[str]) -> list[str]:
    """Folders in the order of the numbers in their names: `checkpoint-1000/` after `checkpoint-500/`."""
    return sorted(
        folders, key=lambda folder: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", folder)]
    )
