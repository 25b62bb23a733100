"""Resuming a run: its last complete checkpoint, and the settings that have to be those of the run."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

from training.finetune.errors import SettingError
from training.finetune.settings import Settings

_logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"
_SETTINGS = "settings.json"
# Files may have moved, and more steps or another machine are fine. Other settings would be ignored silently (the
# learning rate is the state's), or would not fit the checkpoint.
_FREE = {"checkpoint", "data", "validation", "output", "merged", "format", "resume", "epochs", "steps"}
_FREE |= {"evaluate_every", "log_every", "feature_memory", "workers", "threads", "device"}


def state_folder(settings: Settings) -> Path:
    """The folder of Trainer's checkpoints, from which a run resumes."""
    return Path(settings.output) / "training"


def resumed_checkpoint(settings: Settings) -> Path | None:
    """The checkpoint to resume from; None for a run that starts at the beginning.

    Raises:
        SettingError: there is an earlier run in the output folder, which would be overwritten, or the settings are not
            those of the run to resume.
    """
    folder = state_folder(settings)
    if settings.resume:
        checkpoint = last_checkpoint(folder)
        if checkpoint:
            _check_settings(settings, folder / _SETTINGS)
        _logger.info("resuming from %s", checkpoint or "the beginning: there is no complete checkpoint")
        return checkpoint
    if any(folder.glob("checkpoint-*")):
        raise SettingError("output", settings.output, "a folder without an earlier run, or --resume")
    return None


def last_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint: one that was being written when the run was killed is skipped."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        try:
            json.loads((path / _STATE).read_text())  # written last
        except (OSError, ValueError):
            continue
        return path
    return None


def record_settings(settings: Settings) -> None:
    """Write the settings next to the checkpoints, to be compared when the run is resumed."""
    folder = state_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SETTINGS).write_text(json.dumps(asdict(settings), indent=2) + "\n")


def _check_settings(settings: Settings, file: Path) -> None:
    try:
        earlier = json.loads(file.read_text())
    except (OSError, ValueError):
        return  # a run that was killed while it wrote them has no checkpoint
    for name, value in json.loads(json.dumps(asdict(settings))).items():
        if name not in _FREE and name in earlier and value != earlier[name]:
            raise SettingError(name, value, f"{earlier[name]!r}, as in the run to resume")
