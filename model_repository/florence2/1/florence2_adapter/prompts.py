"""A task request -> the parts of the prompt that the engine makes tokens of."""

from florence2.engine.v1.engine_pb2 import PromptPart
from florence2.tasks import Task, expand_prompt, task_of
from florence2.v1 import TaskRequest


def prompt_parts(request: TaskRequest) -> list[PromptPart]:
    """The prompt of a request that `florence2.tasks.check_request` has passed.

    A caller's own words become text parts, in which nothing is a special token. Where a region stands, the engine
    writes its locations: only who decodes the image knows its size. A prompt that the caller rendered is markup, so
    that the `<loc_52>` in it count, unless its task takes words.

    Raises:
        InvalidArgumentError: a rendered prompt with words after a task that takes none.
    """
    task = task_of(request)
    rendered = request.prompt or request.free_prompt.text
    if rendered:
        return [_rendered_part(task, rendered)]
    assert task is not None, "check_request refuses requests without task and prompt"
    if task.input is None:
        return [PromptPart(text=task.sentence)]
    value = getattr(getattr(request, task.name), task.input)
    before, after = task.sentence.split("{input}")
    if task.input == "region":
        parts = [PromptPart(text=before), PromptPart(region=value), PromptPart(text=after)]
        return [part for part in parts if part.WhichOneof("part") == "region" or part.text]
    return [PromptPart(text=f"{before}{value.strip()}{after}")]


def _rendered_part(task: Task | None, rendered: str) -> PromptPart:
    sentence = expand_prompt(rendered)
    takes_words = task is not None and task.input not in (None, "region")
    return PromptPart(text=sentence) if takes_words else PromptPart(markup=sentence)
