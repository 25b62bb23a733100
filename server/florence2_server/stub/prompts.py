"""A task request -> the parts of the prompt that the engine makes tokens of."""

from florence2.engine.v1.engine_pb2 import PromptPart
from florence2.prompts import expand_prompt, input_field, input_words
from florence2.tasks import task_of
from florence2.v1 import TaskRequest


def prompt_parts(request: TaskRequest) -> list[PromptPart]:
    """The prompt of a request that `florence2.prompts.check_request` has accepted.

    A prompt that the caller rendered is markup: the checkpoint's tokens in it are recognized. A task's own words are
    markup too. A caller's words become text parts, in which only `<and>` is a special token. A region is passed on, and
    the engine turns it into location tokens, because the image's size is known only after decoding.

    Raises:
        InvalidArgumentError: a rendered prompt with words after a task that takes none.
    """
    if request.prompt:
        return [PromptPart(markup=expand_prompt(request.prompt), field="prompt")]
    if request.free_prompt.text:
        field = "free_prompt.text"
        return [PromptPart(markup=expand_prompt(request.free_prompt.text, field), field=field)]
    task = task_of(request)
    assert task is not None, "check_request refuses requests without task and prompt"
    if task.input is None:
        return [PromptPart(markup=task.sentence)]
    message = getattr(request, task.name)
    before, after = task.sentence.split("{input}")
    field = input_field(task, message)
    if task.takes_text:
        return [PromptPart(text=f"{before}{input_words(task, message)}{after}", field=field)]
    return [
        PromptPart(markup=before),
        PromptPart(region=message.region, field=field),
        *([PromptPart(markup=after)] if after else []),
    ]
