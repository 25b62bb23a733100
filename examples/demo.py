"""Every task on one image, through a real tritonserver: `make demo`.

Starts the server on free ports, sends a request for each of the fifteen tasks with the typed client, prints the answers
as a table, draws them to `out/`, and stops the server. Results feed later requests: the caption is grounded, the first
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
from florence2_server.tritonserver import StartError, TritonServer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

IMAGE = Path(__file__).with_name("scene.png")
OUTPUT = Path("out")
START_SECONDS = 600

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Request:
    """A request: its task, a function that sends it, and its words or region."""

    task: str
    send: Callable[[], florence2.Result]
    words: str = ""
    region: Box | None = None

    @property
    def input(self) -> str:
        """The words or the region, for the table."""
        return pixels(self.region) if self.region else self.words


def requests(client: florence2.Client, picture: Path) -> Iterator[Request]:
    """A request for each task; the first answers are the inputs of later requests."""
    caption = client.caption(picture).text
    found = client.detect(picture)
    words = client.read_text_regions(picture)
    label = found.labels[0] if len(found) else "object"
    box = as_box(found.boxes[0]) if len(found) else (0.0, 0.0, 10.0, 10.0)
    word = enclosing_box(words) if len(words) else box
    yield Request("caption", lambda: client.caption(picture))
    yield Request("detailed caption", lambda: client.caption(picture, detail="detailed"))
    yield Request("more detailed caption", lambda: client.caption(picture, detail="paragraph"))
    yield Request("object detection", lambda: client.detect(picture))
    yield Request("dense region caption", lambda: client.describe_regions(picture))
    yield Request("region proposal", lambda: client.propose_regions(picture))
    yield Request("phrase grounding", lambda: client.ground(picture, caption), words=caption)
    yield Request("open-vocabulary detection", lambda: client.detect_open_vocabulary(picture, label), words=label)
    yield Request("referring expression segmentation", lambda: client.segment(picture, label), words=label)
    yield Request("region to segmentation", lambda: client.segment_region(picture, box), region=box)
    yield Request("region to category", lambda: client.classify_region(picture, box), region=box)
    yield Request("region to description", lambda: client.describe_region(picture, box), region=box)
    yield Request("OCR", lambda: client.read_text(picture))
    yield Request("OCR with region", lambda: client.read_text_regions(picture))
    yield Request("region to OCR", lambda: client.read_region(picture, word), region=word)


def enclosing_box(words: florence2.TextRegions) -> Box:
    """Return the bounding box of the first piece of text."""
    corners = words.quads[0].reshape(4, 2)
    return as_box([*corners.min(axis=0), *corners.max(axis=0)])


def as_box(edges: Iterable[float]) -> Box:
    """The left, top, right and bottom edges as plain numbers."""
    left, top, right, bottom = (float(edge) for edge in edges)
    return left, top, right, bottom


def pixels(coordinates: Iterable[float]) -> str:
    """Coordinates rounded to whole pixels, for the table."""
    return " ".join(f"{coordinate:.0f}" for coordinate in coordinates)


def summary(result: florence2.Result) -> str:
    """A result in a few words, for the table."""
    if isinstance(result, florence2.Text):
        return result.text
    if isinstance(result, florence2.Detections):
        return "\n".join(f"{found.label or 'region'}: box {pixels(found.box)}" for found in result)
    if isinstance(result, florence2.TextRegions):
        return "\n".join(f"{found.label}: quad {pixels(found.quad)}" for found in result)
    return "\n".join(f"outline of {sum(map(len, polygons))} corners" for polygons in result.polygons)


def annotated(picture: Path, request: Request, result: florence2.Result) -> PIL.Image.Image:
    """The picture with the request's region and its result drawn on it."""
    if request.region is None:
        return florence2.draw(picture, result)
    region = florence2.Detections(np.array([request.region], dtype=np.float32), ["region"])
    return florence2.draw(florence2.draw(picture, region), result)


def show_every_task(client: florence2.Client, progress: Progress, picture: Path) -> Table:
    """Send the requests, draw the results, and collect the answers in a table."""
    table = Table("task", "input", "answer", "ms", title=f"Florence-2 on {picture.name}", show_lines=True)
    sent = progress.add_task("sending requests", total=sum(1 for task in florence2.TASKS if task.token))
    for request in requests(client, picture):
        progress.update(sent, description=request.task)
        started = time.monotonic()
        result = request.send()
        milliseconds = (time.monotonic() - started) * 1000
        annotated(picture, request, result).save(OUTPUT / f"{request.task.replace(' ', '_').lower()}.png")
        table.add_row(request.task, request.input, summary(result), f"{milliseconds:.0f}")
        progress.advance(sent)
    return table


def main() -> None:
    """Run the demo on the image named on the command line, by default the one that ships with the project."""
    image = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGE
    OUTPUT.mkdir(exist_ok=True)
    console = Console()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (OUTPUT / "tritonserver.log").open("wb") as log, Progress(*columns, console=console) as progress:
        loading = progress.add_task("starting tritonserver and loading the checkpoint", total=None)
        with TritonServer(log=log) as server:
            server.wait_until_ready(START_SECONDS)
            progress.update(loading, total=1, completed=1, description=f"ready on {server.grpc_url}")
            with florence2.Client(server.grpc_url) as client:
                table = show_every_task(client, progress, image)
            stopping = progress.add_task("stopping tritonserver", total=None)
        progress.update(stopping, total=1, completed=1, description="stopped")
    console.print(table)
    console.print(f"{OUTPUT}/ holds an annotated picture for each task")


if __name__ == "__main__":
    try:
        main()
    except StartError as error:
        sys.exit(f"{error}: {OUTPUT / 'tritonserver.log'}")
