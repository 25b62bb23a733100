"""Every task on one picture, through a real tritonserver: `make demo`.

Starts the server on free ports, asks all fifteen tasks through the typed client, prints the answers as a table, draws
them to `out/`, and stops the server. What one task finds, the next is asked about: the caption is grounded, the first
detection is segmented and described, the first word is read again.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import florence2
import numpy as np
import PIL.Image
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from serve import ServerError, TritonServer

PICTURE = Path(__file__).with_name("scene.png")
OUTPUT = Path("out")
START_SECONDS = 600

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """A task, how it is asked, and with which words or region."""

    task: str
    ask: Callable[[], florence2.Result]
    words: str = ""
    region: Box | None = None

    @property
    def asked_with(self) -> str:
        """The words or the region, for reading."""
        return pixels(self.region) if self.region else self.words


def questions(client: florence2.Client, picture: Path) -> Iterator[Question]:
    """All tasks; the answers of the first ones are what the later ones are asked with."""
    caption = client.caption(picture).text
    found = client.detect(picture)
    words = client.read_text_regions(picture)
    label = found.labels[0] if len(found) else "object"
    box = as_box(found.boxes[0]) if len(found) else (0.0, 0.0, 10.0, 10.0)
    word = enclosing_box(words) if len(words) else box
    yield Question("caption", lambda: client.caption(picture))
    yield Question("detailed caption", lambda: client.caption(picture, detail="detailed"))
    yield Question("more detailed caption", lambda: client.caption(picture, detail="paragraph"))
    yield Question("object detection", lambda: client.detect(picture))
    yield Question("dense region caption", lambda: client.describe_regions(picture))
    yield Question("region proposal", lambda: client.propose_regions(picture))
    yield Question("phrase grounding", lambda: client.ground(picture, caption), words=caption)
    yield Question("open-vocabulary detection", lambda: client.detect_open_vocabulary(picture, label), words=label)
    yield Question("referring expression segmentation", lambda: client.segment(picture, label), words=label)
    yield Question("region to segmentation", lambda: client.segment_region(picture, box), region=box)
    yield Question("region to category", lambda: client.classify_region(picture, box), region=box)
    yield Question("region to description", lambda: client.describe_region(picture, box), region=box)
    yield Question("OCR", lambda: client.read_text(picture))
    yield Question("OCR with region", lambda: client.read_text_regions(picture))
    yield Question("region to OCR", lambda: client.read_region(picture, word), region=word)


def enclosing_box(words: florence2.TextRegions) -> Box:
    """The bounding box of the first piece of text."""
    corners = words.quads[0].reshape(4, 2)
    return as_box([*corners.min(axis=0), *corners.max(axis=0)])


def as_box(edges: Iterable[float]) -> Box:
    """Left, top, right and bottom edge as plain numbers."""
    left, top, right, bottom = (float(edge) for edge in edges)
    return left, top, right, bottom


def pixels(coordinates: Iterable[float]) -> str:
    """Coordinates in whole pixels, for reading."""
    return " ".join(f"{coordinate:.0f}" for coordinate in coordinates)


def summary(result: florence2.Result) -> str:
    """An answer in a few words."""
    if isinstance(result, florence2.Text):
        return result.text
    if isinstance(result, florence2.Detections):
        return "\n".join(f"{found.label or 'region'}: box {pixels(found.box)}" for found in result)
    if isinstance(result, florence2.TextRegions):
        return "\n".join(f"{found.label}: quad {pixels(found.quad)}" for found in result)
    return "\n".join(f"outline of {sum(map(len, polygons))} corners" for polygons in result.polygons)


def annotated(picture: Path, question: Question, result: florence2.Result) -> PIL.Image.Image:
    """The picture with the answer drawn on it, and the region it was asked about."""
    if question.region is None:
        return florence2.draw(picture, result)
    region = florence2.Detections(np.array([question.region], dtype=np.float32), ["region"])
    return florence2.draw(florence2.draw(picture, region), result)


def show_every_task(client: florence2.Client, progress: Progress, picture: Path) -> Table:
    """Ask, draw and collect the answers."""
    table = Table("task", "asked with", "answer", "ms", title=f"Florence-2 on {picture.name}", show_lines=True)
    asked = progress.add_task("asking", total=len(florence2.TASKS))
    for question in questions(client, picture):
        progress.update(asked, description=question.task)
        started = time.monotonic()
        result = question.ask()
        milliseconds = (time.monotonic() - started) * 1000
        annotated(picture, question, result).save(OUTPUT / f"{question.task.replace(' ', '_').lower()}.png")
        table.add_row(question.task, question.asked_with, summary(result), f"{milliseconds:.0f}")
        progress.advance(asked)
    return table


def main() -> None:
    """Run the demo on the picture named on the command line, or on the one that ships with the project."""
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    OUTPUT.mkdir(exist_ok=True)
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (OUTPUT / "tritonserver.log").open("wb") as log, Progress(*columns, console=console) as progress:
        loading = progress.add_task("starting tritonserver and loading the checkpoint", total=None)
        with TritonServer(log=log) as server:
            server.wait_until_ready(START_SECONDS)
            progress.update(loading, total=1, completed=1, description=f"ready on {server.grpc_url}")
            with florence2.Client(server.grpc_url) as client:
                table = show_every_task(client, progress, picture)
            stopping = progress.add_task("stopping tritonserver", total=None)
        progress.update(stopping, total=1, completed=1, description="stopped")
    console.print(table)
    console.print(f"One annotated picture a task is in {OUTPUT}/")


if __name__ == "__main__":
    try:
        main()
    except ServerError as error:
        sys.exit(f"{error} ({OUTPUT / 'tritonserver.log'})")
