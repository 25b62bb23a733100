"""Drawn pictures of a run's results."""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

from florence2.bulk.storage import Location
from florence2.bulk.tasks import BulkTask
from florence2.client.answers import Answer
from florence2.drawing import draw
from florence2.results import Detections, Segmentation, TextRegions

_UNSAFE: Final = re.compile(r'[%<>:"|?*\\\x00-\x1f]')
_LONGEST_NAME: Final = 180  # bytes; file systems take 255, with the suffix


class PictureFolder:
    """A folder with a picture for each image and task whose result has boxes, outlines or quads."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def draw(self, id_: str, image: bytes, tasks: Sequence[BulkTask], answer: Answer) -> None:
        """Draw the results about an image. Texts and cascades are not drawn."""
        outcomes = [step.outcome for step in answer.steps] if len(tasks) > 1 else [answer]
        for task, outcome in zip(tasks, outcomes, strict=True):
            if not isinstance(outcome, Answer):
                continue
            result = outcome.result
            if isinstance(result, Detections | Segmentation | TextRegions):
                name = id_ if len(tasks) == 1 else f"{id_}.{task.name}"
                target = self._folder.child(f"{safe_path(name)}.png")
                with target.replaced() as file:
                    draw(image, result).save(file, "PNG")


def safe_path(id_: str) -> str:
    """A relative path, unique to this id, that is valid on every system and stays inside its folder."""
    parts = id_.split("/")
    return "/".join(_safe_name(part) for part in parts)


def _safe_name(part: str) -> str:
    if part in ("", ".", ".."):
        return "%" + part.replace(".", "%2E")
    name = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", part)
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    # A digest keeps names apart whose beginnings are the same.
    digest = hashlib.sha256(part.encode()).hexdigest()[:32]
    return f"{name.encode()[: _LONGEST_NAME - 33].decode(errors='ignore')}%{digest}"
