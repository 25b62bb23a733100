"""Drawn answers, in a file or in a folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import PIL.Image

from florence2.cli.exits import CommandError, reason
from florence2.drawing import draw
from florence2.images import ImageSource
from florence2.plan_results import GroundedCaption, PlanResult, RegionAnalysis, TaskResults
from florence2.results import Detections, Result, Text

_STANDARD_INPUT_STEM: Final = "stdin"


@dataclass(frozen=True)
class Pictures:
    """The file for each image's picture, in the order of the images."""

    files: list[Path]

    @classmethod
    def of(cls, target: Path | None, names: Sequence[str]) -> "Pictures | None":
        """The files for `--draw`; None if it is not given.

        A single image is drawn to a file, unless the target is a folder or has no suffix. Several images are drawn into
        a folder, each with its own name; names that occur again get a number. Folders are made.

        Raises:
            CommandError: pictures cannot be written to the target.
        """
        if target is None:
            return None
        if len(names) == 1 and target.suffix and not target.is_dir():
            _check_suffix(target)
            _make(target.parent)
            return cls(_harmless([target], names))
        if target.suffix and not target.is_dir():
            raise CommandError(f"--draw: got {target}, expected a folder, because there are {len(names)} images")
        _make(target)
        return cls(_harmless(_files(target, names), names))

    def save(self, index: int, image: ImageSource, result: Result | PlanResult) -> None:
        """Draw an image's result.

        Raises:
            OSError: the image cannot be read, or the picture cannot be written.
            InvalidArgumentError: the image is not in a form that a client accepts.
        """
        draw(image, _drawable(result)).save(self.files[index])


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--draw: {folder}: {reason(error)}") from error


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    files: list[Path] = []
    taken: set[Path] = set()
    for name in names:
        stem = _STANDARD_INPUT_STEM if name == "-" else Path(name).stem
        file, number = folder / f"{stem}.png", 1
        while file in taken:
            number += 1
            file = folder / f"{stem}-{number}.png"
        taken.add(file)
        files.append(file)
    return files


def _harmless(files: list[Path], names: Sequence[str]) -> list[Path]:
    """The files, none of which is one of the images."""
    images = {Path(name).resolve() for name in names}
    for file in files:
        if file.resolve() in images:
            raise CommandError(f"--draw: {file} is one of the images and would be overwritten")
    return files


def _check_suffix(file: Path) -> None:
    PIL.Image.init()
    known = {suffix for suffix, kind in PIL.Image.registered_extensions().items() if kind in PIL.Image.SAVE}
    if file.suffix.lower() not in known:
        raise CommandError(f"--draw: got {file}, expected the suffix of an image format, e.g. .png or .jpg")


def _drawable(result: Result | PlanResult) -> Result:
    """What of a result is drawn."""
    match result:
        case GroundedCaption():
            return result.caption if result.detections is None else result.detections
        case RegionAnalysis():
            return _described(result)
        case TaskResults():
            drawn = [each for each in result.outcomes if isinstance(each, Result)]
            return next((each for each in drawn if not isinstance(each, Text)), drawn[0] if drawn else Text(""))
    return result


def _described(analysis: RegionAnalysis) -> Detections:
    """The detections with the text about each region as its label."""
    labels = list(analysis.detections.labels)
    for region in analysis.regions:
        if isinstance(region.result, Text):
            labels[region.item] = region.result.text
    return replace(analysis.detections, labels=labels)
