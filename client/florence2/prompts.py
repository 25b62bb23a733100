"""Renders a request's prompt, and checks both as far as is possible without the image.

A prompt has two forms. Users know the text form, an official token and its input: `<OD>`,
`<CAPTION_TO_PHRASE_GROUNDING>A green car`. The model was trained on sentences: "Locate the objects with
category name in the image." `render_prompt` goes from a request to the text form, `expand_prompt` from there
to the sentence.
"""

from collections.abc import Sequence

from google.protobuf.message import Message

from florence2 import v1
from florence2.errors import InvalidArgumentError, require_type
from florence2.generation import check_generation
from florence2.locations import ImageSizeLike, check_region, location_tokens, region_bins
from florence2.tasks import PHRASE_SEPARATOR, Task, task_of_field, task_of_prompt


def render_prompt(request: v1.TaskRequest, image_size: ImageSizeLike | None = None) -> str:
    """A request's prompt in the text form that users know.

    Args:
        request: a request; `request.prompt` takes precedence over its task, and a free prompt is returned unchanged.
        image_size: the image's size in pixels, needed only by tasks on a region.

    Returns:
        E.g. `"<OD>"`, `"<REGION_TO_CATEGORY><loc_52><loc_332><loc_932><loc_774>"` or, for several queries,
        `"<OPEN_VOCABULARY_DETECTION>a car<and>a building"`.

    Raises:
        TypeError: `request` is not a `TaskRequest`.
        InvalidArgumentError: there is neither task nor prompt, the task's input is missing or blank, or its region is
            not inside the image.
    """
    require_type("request", request, v1.TaskRequest)
    if request.prompt:
        return request.prompt
    name = request.WhichOneof("task")
    if name is None:
        raise InvalidArgumentError.of_field("task", None, "a task or a prompt")
    if name == "free_prompt":
        return request.free_prompt.text
    task = task_of_field(name)
    return task.token + _render_input(task, getattr(request, name), image_size)


def _render_input(task: Task, message: Message, image_size: ImageSizeLike | None) -> str:
    if task.input is None:
        return ""
    _check_input(task, message)
    if task.takes_text:
        return input_words(task, message)
    if image_size is None:
        raise InvalidArgumentError.of_field("image_size", None, f"the image's size, which {task.token} needs")
    return location_tokens(region_bins(getattr(message, task.input), image_size, input_field(task, message)))


def input_words(task: Task, message: Message) -> str:
    """The input text of a task that takes text; several inputs are joined with `PHRASE_SEPARATOR`.

    White space around an input is dropped.
    """
    assert task.input is not None
    inputs = _inputs(task, message) or [getattr(message, task.input)]
    return PHRASE_SEPARATOR.join(words.strip() for words in inputs)


def input_field(task: Task, message: Message) -> str:
    """The full path of the field that holds a task's input, e.g. `"phrase_grounding.phrases"`."""
    return f"{task.name}.{task.inputs if _inputs(task, message) else task.input}"


def _inputs(task: Task, message: Message) -> Sequence[str]:
    return getattr(message, task.inputs) if task.inputs else ()


def expand_prompt(text: str, field: str = "prompt") -> str:
    """The sentence that the model is fed for a prompt in text form.

    Args:
        text: e.g. `"<CAPTION_TO_PHRASE_GROUNDING>A green car"`. White space around the input is dropped.
        field: the name of the prompt in errors, e.g. `"free_prompt.text"`.

    Returns:
        E.g. `"Locate the phrases in the caption: A green car"`; a prompt that does not begin with an
        official token, unchanged.

    Raises:
        TypeError: `text` is not a str.
        InvalidArgumentError: text follows the token of a task without input, or no text follows the token of a task
            with input.
    """
    require_type("text", text, str)
    task = task_of_prompt(text)
    if task is None:
        return text
    value = text.removeprefix(task.token).strip()
    if task.input is None and value:
        raise InvalidArgumentError.of_field(field, text, f"nothing after {task.token}, which takes no input")
    if task.input is not None and not value:
        raise InvalidArgumentError.of_field(field, text, f"the {task.input} after {task.token}")
    # Not str.format: the input is the user's, who may write braces.
    return task.sentence.replace("{input}", value)


def check_request(request: v1.TaskRequest) -> None:
    """Check everything that can be checked without the image.

    If `request.prompt` is set, the task message only says how the answer is decoded, so its own fields are not
    checked.

    Raises:
        TypeError: `request` is not a `TaskRequest`.
        InvalidArgumentError: no task and no prompt, a blank phrase or prompt, an impossible region, or a
            generation option out of range. The message names the field by its full path, the value and the limit.
    """
    require_type("request", request, v1.TaskRequest)
    name = request.WhichOneof("task")
    if request.prompt:
        _check_prompt(request.prompt, "prompt")
    elif name == "free_prompt":
        _check_prompt(request.free_prompt.text, "free_prompt.text")
    elif name is None:
        raise InvalidArgumentError.of_field("task", None, "a task or a prompt")
    else:
        _check_input(task_of_field(name), getattr(request, name))
    check_generation(request.generation)


def _check_prompt(prompt: str, field: str) -> None:
    if not prompt.strip():
        raise InvalidArgumentError.of_field(field, prompt, "a prompt that is not empty")
    expand_prompt(prompt, field)


def _check_input(task: Task, message: Message) -> None:
    if task.input is None:
        return
    field, value = input_field(task, message), getattr(message, task.input)
    if task.takes_text:
        _check_words(task, message, field)
    elif not message.HasField(task.input):
        raise InvalidArgumentError.of_field(field, None, "a bounding box in pixels")
    else:
        check_region(value, field)


def _check_words(task: Task, message: Message, field: str) -> None:
    assert task.input is not None
    value, inputs = getattr(message, task.input), _inputs(task, message)
    if not inputs and not value.strip():
        instead = f", or {task.inputs}" if task.inputs else ""
        raise InvalidArgumentError.of_field(field, value, f"a {task.input} that is not empty{instead}")
    if inputs and value:
        raise InvalidArgumentError.of_field(field, list(inputs), f"either {task.inputs} or a {task.input}, not both")
    for index, words in enumerate(inputs):
        if not words.strip():
            raise InvalidArgumentError.of_field(f"{field}[{index}]", words, "words that are not empty")
