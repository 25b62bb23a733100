"""The table of task commands: for each, its arguments, the request that it sends, and what its tables show.

The parameters of a request's function are the command's own options.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

import typer

from florence2 import v1
from florence2.cli.exits import CommandError
from florence2.client import typed_plans, typed_requests
from florence2.client.typed_plans import RegionDetector, RegionTask
from florence2.client.typed_requests import CaptionDetail
from florence2.tasks import FREE_PROMPT, TASKS, Task

Detail: TypeAlias = Annotated[CaptionDetail, typer.Option(help="One sentence, a few, or a paragraph.")]
RegionText: TypeAlias = Annotated[
    str | None, typer.Option("--region", metavar="X0,Y0,X1,Y1", help="A box in pixels of the image as displayed.")
]

_SIDES: Final = 4


@dataclass(frozen=True)
class TaskCommand:
    """A command that sends one request about each image."""

    name: str
    request: Callable[..., v1.TaskRequest]
    """Its docstring is the command's help."""
    columns: tuple[str, ...] = ()
    """What a table shows of each item, see `florence2.cli.tables.COLUMNS`; empty if the answer has no items, or if its
    type decides."""
    has_filters: bool = False
    """Whether items can be left out by score, number and label."""


def caption(
    detail: Detail = "brief",
    ground: Annotated[bool, typer.Option("--ground", help="Also find the phrases of the caption.")] = False,
) -> v1.TaskRequest:
    """Describe each image."""
    return typed_plans.ground_caption(detail) if ground else typed_requests.caption(detail).request


def detect() -> v1.TaskRequest:
    """Find objects, with category names."""
    return typed_requests.detect().request


def describe(region: RegionText = None) -> v1.TaskRequest:
    """Find regions and describe each, or describe one --region."""
    if region is None:
        return typed_requests.describe_regions().request
    return typed_requests.describe_region(_box(region)).request


def propose() -> v1.TaskRequest:
    """Propose regions of interest, without labels."""
    return typed_requests.propose_regions().request


def ground(
    caption: Annotated[str | None, typer.Option(metavar="TEXT", help="A caption whose phrases to find.")] = None,
    phrase: Annotated[
        list[str] | None, typer.Option("--phrase", metavar="TEXT", help="A phrase to find; may be repeated.")
    ] = None,
) -> v1.TaskRequest:
    """Find the phrases of a --caption, or each --phrase."""
    text = _one_of("--caption", caption, "--phrase", phrase or None)
    return typed_requests.ground(text).request


def find(
    query: Annotated[list[str], typer.Option("--query", metavar="TEXT", help="What to find; may be repeated.")],
) -> v1.TaskRequest:
    """Find objects by free descriptions (open vocabulary)."""
    return typed_requests.detect_open_vocabulary(query[0] if len(query) == 1 else query).request


def segment(
    expression: Annotated[str | None, typer.Option(metavar="TEXT", help="What to outline, in words.")] = None,
    region: RegionText = None,
) -> v1.TaskRequest:
    """Outline an object, by an --expression or in a --region."""
    _one_of("--expression", expression, "--region", region)
    if expression is not None:
        return typed_requests.segment(expression).request
    assert region is not None, "one of the two"
    return typed_requests.segment_region(_box(region)).request


def classify(
    region: Annotated[str, typer.Option("--region", metavar="X0,Y0,X1,Y1", help="A box in pixels.")],
) -> v1.TaskRequest:
    """Name the category of the object in a --region."""
    return typed_requests.classify_region(_box(region)).request


def read(
    regions: Annotated[bool, typer.Option("--regions", help="Also say where each piece of text is.")] = False,
    region: RegionText = None,
) -> v1.TaskRequest:
    """Read text (OCR), with --regions also where it is."""
    if regions and region is not None:
        raise CommandError("--region: not with --regions, which is about the whole image")
    if region is not None:
        return typed_requests.read_region(_box(region)).request
    return (typed_requests.read_text_regions() if regions else typed_requests.read_text()).request


def analyze(
    region_task: Annotated[RegionTask, typer.Option("--region-task", help="What to do about each region.")] = (
        "description"
    ),
    detector: Annotated[RegionDetector | None, typer.Option(help="What finds the regions. Default: objects.")] = None,
    caption: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instead of a detector: find a caption's phrases.")
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Instead of a detector: find this.")] = None,
    max_regions: Annotated[int | None, typer.Option(min=1, help="Only the first regions.")] = None,
) -> v1.TaskRequest:
    """Find regions, then describe, classify, read or outline each."""
    return typed_plans.analyze_regions(region_task, detector, caption, query, max_regions)


def run(
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="TOKEN",
            help="An official task, e.g. '<OD>' or OD; several are answered in one request.",
            autocompletion=lambda: [each.token.strip("<>") for each in TASKS if each.token],
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A prompt of a fine-tuned checkpoint, or the task's input.")
    ] = None,
) -> v1.TaskRequest:
    """Run any --prompt, or official tasks by their tokens."""
    if not task and prompt is None:
        raise CommandError("--prompt: missing; `run` needs --prompt, --task, or both")
    tasks = [_task(name) for name in task or [""]]
    has_input = any(each.input for each in tasks)  # without any, the input is an error, which the request's check names
    requests = [
        v1.TaskRequest(prompt=f"{each.token}{prompt or ''}" if each.input or not has_input else each.token)
        for each in tasks
    ]
    return requests[0] if len(requests) == 1 else typed_plans.run_tasks(requests)


COMMANDS: Final = (
    TaskCommand("caption", caption, ("phrase", "score", "box"), has_filters=True),
    TaskCommand("detect", detect, ("object", "score", "box"), has_filters=True),
    TaskCommand("describe", describe, ("description", "score", "box"), has_filters=True),
    TaskCommand("propose", propose, ("score", "box"), has_filters=True),
    TaskCommand("ground", ground, ("phrase", "score", "box"), has_filters=True),
    TaskCommand("find", find, ("object", "score", "box", "outline"), has_filters=True),
    TaskCommand("segment", segment, ("score", "extent", "outline"), has_filters=True),
    TaskCommand("classify", classify),
    TaskCommand("read", read, ("text", "score", "quad"), has_filters=True),
    TaskCommand("analyze", analyze, ("object", "answer", "box")),
    TaskCommand("run", run, has_filters=True),
)
"""All task commands, in the order of the help."""


def _task(name: str) -> Task:
    """The task of an official token, with or without its brackets, of a field of `TaskRequest`, or of a method."""
    if not name:
        return FREE_PROMPT
    for task in TASKS:
        if name in (task.token, task.token.strip("<>"), task.name, task.client_method.replace("_", "-")):
            return task
    tokens = ", ".join(task.token.strip("<>") for task in TASKS if task.token)
    raise CommandError(f"--task: got {name!r}, expected one of {tokens}")


def _box(text: str) -> list[float]:
    try:
        sides = [float(side) for side in text.replace(" ", "").split(",")]
    except ValueError:
        sides = []
    if len(sides) != _SIDES:
        raise CommandError(f"--region: got {text!r}, expected x_min,y_min,x_max,y_max in pixels, e.g. 10,20,200,150")
    return sides


def _one_of(first: str, one: str | None, second: str, other: str | list[str] | None) -> str | list[str]:
    """The one of two options that is given."""
    if one is not None and other is not None:
        raise CommandError(f"{second}: not with {first}; give one of them")
    value = other if one is None else one
    if value is None:
        raise CommandError(f"{first}: missing; give {first} or {second}")
    return value
