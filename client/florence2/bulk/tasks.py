"""The tasks of a run, as a command line names them, and the request for each image."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from florence2 import v1
from florence2.client import typed_plans, typed_requests
from florence2.errors import InvalidArgumentError
from florence2.options import TaskOptions, set_options
from florence2.plans import check_plan
from florence2.tasks import FREE_PROMPT, TASKS, AnswerForm, Task

_DETAILS: Final = {"caption": "brief", "detailed_caption": "detailed", "more_detailed_caption": "paragraph"}
# The names of the commands that are not those of the client's methods.
_COMMANDS: Final = {
    "classify": "classify-region",
    "describe": "describe-regions",
    "find": "detect-open-vocabulary",
    "propose": "propose-regions",
    "read": "read-text",
}
_SEPARATOR: Final = "="
_REGION: Final = (0.0, 0.0, 1.0, 1.0)
_SIDES: Final = 4


@dataclass(frozen=True)
class BulkTask:
    """A task of a run.

    Attributes:
        name: the name of its results in the output, unique in the run.
        word: the name of the task on the command line, e.g. `"detect"`.
        task: the task; None for a cascade.
        input: the input for all images; None if each image has its own, or the task takes none.
        build: makes the request from the input.
        field: the input's name in a manifest; None if the task takes none.
    """

    name: str
    word: str
    task: Task | None
    input: object
    build: Callable[[Any], v1.TaskRequest]
    field: str | None

    @property
    def needs_inputs(self) -> bool:
        """Whether each image must have an input of its own."""
        return self.field is not None and self.input is None

    @property
    def is_localizing(self) -> bool:
        """Whether answers have boxes, outlines or quads."""
        return self.task is not None and self.task.answer not in (AnswerForm.TEXT, AnswerForm.REGION_TEXT)

    def request(self, inputs: Mapping[str, object]) -> v1.TaskRequest:
        """The request for an image with these inputs.

        Raises:
            InvalidArgumentError: the input is missing or invalid.
            TypeError: the input has the wrong type.
        """
        if not self.needs_inputs:
            return self.build(self.input)
        assert self.field is not None
        names = (self.name, self.word, self.field)
        given = next((inputs[name] for name in names if inputs.get(name) is not None), None)
        if given is None:
            raise InvalidArgumentError.of_field(self.field, None, f"an input for the task {self.name}")
        return self.build(_region(given) if self.field == "region" else given)


def bulk_tasks(given: Sequence[str]) -> list[BulkTask]:
    """The tasks that a command line names.

    Args:
        given: for each task its name, as `task_words` lists them, or its official token; then, optionally, `=` and an
            input that is the same for all images: `"detect"`, `"<OD>"`, `"ground=A red circle."`,
            `"read-region=10,10,200,80"`.

    Raises:
        InvalidArgumentError: no task, an unknown one, the same one twice, or an input that is not valid.
    """
    if not given:
        raise InvalidArgumentError.of_field("task", list(given), "at least one")
    words = [each.partition(_SEPARATOR)[0] for each in given]
    often = {word for word, count in Counter(words).items() if count > 1}
    tasks = [_task(each, each if word in often else word) for each, word in zip(given, words, strict=True)]
    if len({task.name for task in tasks}) < len(tasks):
        raise InvalidArgumentError.of_field("task", list(given), "each task once")
    return tasks


def check_tasks(tasks: Sequence[BulkTask], options: TaskOptions) -> None:
    """Check the tasks and their options before the first image.

    Raises:
        InvalidArgumentError: the server would reject every request. The message names the field.
    """
    check_plan(bulk_request(tasks, {"text": "text", "prompt": "text", "region": _REGION}, options))


def bulk_request(tasks: Sequence[BulkTask], inputs: Mapping[str, object], options: TaskOptions) -> v1.TaskRequest:
    """One request for all tasks about an image.

    Raises:
        InvalidArgumentError: the input of a task is missing or invalid.
        TypeError: the input of a task has the wrong type.
    """
    requests = [task.request(inputs) for task in tasks]
    request = requests[0] if len(requests) == 1 else typed_plans.run_tasks(requests)
    set_options(request, options)
    return request


def task_words() -> list[str]:
    """The names of all tasks."""
    return [*(_word(task) for task in TASKS), "ground-caption", "analyze-regions"]


def _task(given: str, name: str) -> BulkTask:
    word, separator, text = given.partition(_SEPARATOR)
    wanted = word.replace("_", "-")
    wanted = _COMMANDS.get(wanted, wanted)
    if wanted == "ground-caption":
        return BulkTask(name, word, None, text or "brief", typed_plans.ground_caption, None)
    if wanted == "analyze-regions":
        return BulkTask(name, word, None, text or "description", _analysis, None)
    task = next(
        (each for each in TASKS if wanted in (_word(each), each.name.replace("_", "-")) or word == each.token), None
    )
    if task is None or not word:
        raise InvalidArgumentError.of_field("task", given, f"one of {', '.join(task_words())}")
    if task.input is None:
        if separator:
            raise InvalidArgumentError.of_field("task", given, f"{word} without an input")
        return BulkTask(name, word, task, None, _builder(task), None)
    field = "region" if task.takes_region else "prompt" if task is FREE_PROMPT else "text"
    value = (_region(text) if task.takes_region else text) if separator else None
    bulk_task = BulkTask(name, word, task, value, _builder(task), field)
    if separator:
        check_plan(bulk_task.request({}))
    return bulk_task


def _word(task: Task) -> str:
    """The name of a task: that of the client's method, or of the field of `TaskRequest` for the three captions."""
    return (task.name if task.name in _DETAILS else task.client_method).replace("_", "-")


def _builder(task: Task) -> Callable[[Any], v1.TaskRequest]:
    make: Callable[..., Any] = getattr(typed_requests, task.client_method)

    def build(value: Any) -> v1.TaskRequest:
        if task.name in _DETAILS:
            value = _DETAILS[task.name]
        request = (make() if value is None else make(value)).request
        assert isinstance(request, v1.TaskRequest)
        return request

    return build


def _analysis(region_task: Any) -> v1.TaskRequest:
    return typed_plans.analyze_regions(region_task, None, None, None, None)


def _region(given: object) -> object:
    """A region as four numbers, also from a text: `10,10,200,80`, or the same in brackets."""
    if not isinstance(given, str):
        return given
    parts = given.strip().strip("[]()").replace(",", " ").split()
    try:
        sides = [float(part) for part in parts]
    except ValueError:
        sides = []
    if len(sides) != _SIDES:
        raise InvalidArgumentError.of_field("region", given, "four numbers: x_min,y_min,x_max,y_max in pixels")
    return sides
