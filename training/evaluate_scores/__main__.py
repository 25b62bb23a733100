"""The command line: `python -m training.evaluate_scores [--checkpoint F] [--coco FILE --images FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import florence2
from florence2_server.in_process import InProcess
from florence2_server.repository import DEMO_CHECKPOINT
from rich.console import Console
from rich.progress import track
from rich.table import Table

from training.evaluate_scores.evaluation import calibration_rows, figures, judged, run, threshold_rows
from training.evaluate_scores.measures import Judged
from training.evaluate_scores.pictures import Picture, coco_pictures, scene_pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures of a checkpoint's scores. Returns 1 if the demo's scenes miss a target."""
    settings = _parse(arguments)
    pictures = (
        coco_pictures(settings.coco, settings.images)
        if settings.coco
        else scene_pictures(settings.first, settings.scenes)
    )
    found = _found(settings.checkpoint, pictures, settings.prompt, None if settings.coco else 2 * settings.scenes)
    everything = [each for group in found.values() for each in group]
    tables = {"all": everything, **found} if len(found) > 1 else found
    console = Console()
    columns = {name: figures(group) for name, group in tables.items()}
    table = Table("", *columns, "target for all" if len(found) > 1 else "the demo's target", "")
    for rows in zip(*columns.values(), strict=True):
        verdict = "" if not rows[0].target else "met" if rows[0].is_met else "missed"
        table.add_row(rows[0].name, *(f"{row.value:.4g}" for row in rows), rows[0].target, verdict)
    console.print(table)
    console.print(_thresholds(everything), _calibration(everything))
    is_met = all(figure.is_met for figure in next(iter(columns.values())))
    return 0 if is_met or settings.coco else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate_scores", description=__doc__)
    parser.add_argument("--checkpoint", default=str(DEMO_CHECKPOINT), help="a folder or a hub id; default: the demo")
    parser.add_argument(
        "--coco", type=Path, help="a COCO detection file; default: the demo's scenes, clean and degraded"
    )
    parser.add_argument("--images", type=Path, help="the folder of its images; default: the folder that the file is in")
    parser.add_argument("--prompt", default="<OD>", help="a prompt whose answers are boxes with labels; default: <OD>")
    parser.add_argument("--scenes", type=int, default=1000, help="the number of scenes of the demo; default: 1000")
    choice = (
        "the number of the first scene; default: 0. The tolerance and the like were chosen on scenes from 50,000 on"
    )
    parser.add_argument("--first", type=int, default=0, help=choice)
    settings = parser.parse_args(arguments)
    if settings.coco and not settings.images:
        settings.images = settings.coco.parent
    return settings


def _found(checkpoint: str, pictures: Iterable[Picture], prompt: str, total: int | None) -> dict[str, list[Judged]]:
    """The judged detections of each group of pictures."""
    with florence2.Client(transport=InProcess(checkpoint)) as client:
        answers = run(client, pictures, prompt)
        done = list(track(answers, "answering", total=total, console=Console(stderr=True)))
    groups: dict[str, list[Judged]] = defaultdict(list)
    for (picture, _), each in zip(done, judged(done), strict=True):
        groups[picture.group].append(each)
    return groups


def _thresholds(found: Sequence[Judged]) -> Table:
    table = Table("score above", "precision", "recall")
    for threshold, precision, recall in threshold_rows(found):
        table.add_row(f"{threshold:g}", f"{precision:.3f}", f"{recall:.3f}")
    return table


def _calibration(found: Sequence[Judged]) -> Table:
    table = Table("scores", "detections", "mean score", "right")
    for index, (count, score, share) in enumerate(calibration_rows(found)):
        if count:
            table.add_row(f"{index / 10:g} to {(index + 1) / 10:g}", str(count), f"{score:.3f}", f"{share:.3f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
