"""Renders a request's prompt, and checks request and prompt as far as possible without the image.

A prompt has two forms. Users know the text form, an official token and its input: `<OD>`,
`<CAPTION_TO_PHRASE_GROUNDING>A green car`. The model was trained on sentences: "Locate the objects with category name
in the image." `render_prompt` returns the text form of a request, and `prompt_pieces` the sentence; `expand_prompt`
turns a text form into its sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final, TypeAlias

from google.protobuf.message import Message

from florence2 import v1
from florence2.adapter_names import check_adapter_name
from florence2.errors import InvalidArgumentError, require_type
from florence2.locations import ImageSizeLike, check_region, location_tokens, region_bins
from florence2.options import check_generation
from florence2.tasks import FREE_PROMPT, PHRASE_SEPARATOR, TASK_NAMES, Task, task_of_field, task_of_prompt


@dataclass(frozen=True)
class Markup:
    """A piece of a prompt in which the checkpoint's special tokens are recognized."""

    text: str
    field: str = ""
    """The piece's path in the request, e.g. `"free_prompt.text"`; empty if the caller did not write it."""


@dataclass(frozen=True)
class PlainText:
    """A piece of a prompt in which no special token but `<and>` is recognized."""

    text: str
    field: str


@dataclass(frozen=True)
class Region:
    """A piece of a prompt that becomes location tokens once the image's size is known."""

    box: v1.BoundingBox
    field: str


Piece: TypeAlias = Markup | PlainText | Region

LOWEST_PRIORITY: Final = 3
"""The highest number, and the last to be served, of `TaskRequest.priority`."""


def render_prompt(request: v1.TaskRequest, image_size: ImageSizeLike | None = None) -> str:
    """The text form of a request's prompt.

    Args:
        request: a request; `request.prompt` takes precedence over its task, and a free prompt is returned unchanged.
        image_size: the image's size in pixels, needed only if the task's input is a region.

    Returns:
        E.g. `"<OD>"`, `"<REGION_TO_CATEGORY><loc_52><loc_332><loc_932><loc_774>"` or, for several queries,
        `"<OPEN_VOCABULARY_DETECTION>a car<and>a building"`.

    Raises:
        TypeError: `request` is not a `TaskRequest`.
        InvalidArgumentError: the request has neither a task nor a prompt, the task's input is missing or blank, or its
            region is not inside the image.
    """
    require_type("request", request, v1.TaskRequest)
    prompt = _given_prompt(request)
    if prompt is not None:
        return prompt.text
    task, message = _task_and_message(request)
    _check_input(task, message)
    template = f"{task.token}{{input}}" if task.input else task.token
    return "".join(_rendered(piece, image_size) for piece in _fill(template, task, message))


def prompt_pieces(request: v1.TaskRequest) -> list[Piece]:
    """The sentence for the model, in pieces, for a request that `check_request` has accepted.

    Raises:
        InvalidArgumentError: a rendered prompt has text after a task without input.
    """
    prompt = _given_prompt(request)
    if prompt is not None:
        return [replace(prompt, text=expand_prompt(prompt.text, prompt.field))]
    task, message = _task_and_message(request)
    return _fill(task.sentence, task, message)


def _given_prompt(request: v1.TaskRequest) -> Markup | None:
    """The prompt that the caller wrote; None if it is rendered from the task."""
    if request.prompt:
        return Markup(request.prompt, "prompt")
    if request.WhichOneof("task") == FREE_PROMPT.name:
        return Markup(request.free_prompt.text, "free_prompt.text")
    return None


def _task_and_message(request: v1.TaskRequest) -> tuple[Task, Message]:
    name = request.WhichOneof("task")
    if name is None:
        raise InvalidArgumentError.of_field("task", None, "a task or a prompt")
    if name not in TASK_NAMES:  # a cascade or a task list
        raise InvalidArgumentError.of_field("task", name, "a single task or a prompt")
    return task_of_field(name), getattr(request, name)


def _fill(template: str, task: Task, message: Message) -> list[Piece]:
    """The pieces of a template whose `{input}` is a task's input."""
    if task.input is None:
        return [Markup(template)]
    field = _input_field(task, message)
    if task.takes_text:
        return [PlainText(_substitute(template, _input_words(task, message)), field)]
    before, after = template.split("{input}")
    pieces: list[Piece] = [Markup(before), Region(getattr(message, task.input), field)]
    return [*pieces, Markup(after)] if after else pieces


def _substitute(template: str, words: str) -> str:
    # Not str.format: the words are the caller's, and may contain braces.
    return template.replace("{input}", words)


def _rendered(piece: Piece, image_size: ImageSizeLike | None) -> str:
    if not isinstance(piece, Region):
        return piece.text
    if image_size is None:
        raise InvalidArgumentError.of_field("image_size", None, f"the image's size, which {piece.field} needs")
    return location_tokens(region_bins(piece.box, image_size, piece.field))


def _input_words(task: Task, message: Message) -> str:
    """The input of a task that takes text; several inputs are joined with `PHRASE_SEPARATOR`.

    White space around an input is dropped.
    """
    assert task.input is not None
    inputs = _inputs(task, message) or [getattr(message, task.input)]
    return PHRASE_SEPARATOR.join(words.strip() for words in inputs)


def _input_field(task: Task, message: Message) -> str:
    """The full path of the field that holds a task's input, e.g. `"phrase_grounding.phrases"`."""
    return f"{task.name}.{task.inputs if _inputs(task, message) else task.input}"


def _inputs(task: Task, message: Message) -> Sequence[str]:
    return getattr(message, task.inputs) if task.inputs else ()


def expand_prompt(text: str, field: str = "prompt") -> str:
    """The sentence for the model that a prompt in text form stands for.

    Args:
        text: e.g. `"<CAPTION_TO_PHRASE_GROUNDING>A green car"`. White space around the input is dropped.
        field: the name of the prompt in errors, e.g. `"free_prompt.text"`.

    Returns:
        E.g. `"Locate the phrases in the caption: A green car"`. A prompt that does not begin with an official token is
        returned unchanged.

    Raises:
        TypeError: `text` is not a str.
        InvalidArgumentError: text follows the token of a task without input, or no text follows the token of a task
            with input.
    """
    require_type("text", text, str)
    task = task_of_prompt(text)
    if task is FREE_PROMPT:
        return text
    value = text.removeprefix(task.token).strip()
    if task.input is None and value:
        raise InvalidArgumentError.of_field(field, text, f"nothing after {task.token}, which takes no input")
    if task.input is not None and not value:
        raise InvalidArgumentError.of_field(field, text, f"the {task.input} after {task.token}")
    return _substitute(task.sentence, value)


def check_request(request: v1.TaskRequest) -> None:
    """Check everything that can be checked without the image.

    If `request.prompt` is set, the task message only determines how the answer is decoded, so its own fields are not
    checked.

    Raises:
        TypeError: `request` is not a `TaskRequest`.
        InvalidArgumentError: the request has neither a task nor a prompt, a phrase or prompt is blank, a region is
            impossible, a generation option is out of range, or no adapter can have the given name. The message names
            the field by its full path, the value and the limit.
    """
    require_type("request", request, v1.TaskRequest)
    prompt = _given_prompt(request)
    if prompt is None:
        _check_input(*_task_and_message(request))
    else:
        _check_prompt(prompt)
    if request.adapter:
        check_adapter_name(request.adapter)
    check_generation(request.generation)
    _check_scheduling(request)


def _check_scheduling(request: v1.TaskRequest) -> None:
    if not 0 <= request.priority <= LOWEST_PRIORITY:
        raise InvalidArgumentError.of_field("priority", request.priority, f"0 to {LOWEST_PRIORITY}")
    if not 0 <= request.timeout_seconds < inf:
        raise InvalidArgumentError.of_field("timeout_seconds", request.timeout_seconds, "a number of seconds above 0")


def _check_prompt(prompt: Markup) -> None:
    if not prompt.text.strip():
        raise InvalidArgumentError.of_field(prompt.field, prompt.text, "a prompt that is not empty")
    expand_prompt(prompt.text, prompt.field)


def _check_input(task: Task, message: Message) -> None:
    if task.input is None:
        return
    field, value = _input_field(task, message), getattr(message, task.input)
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
        article = "an" if task.input[0] in "aeiou" else "a"
        raise InvalidArgumentError.of_field(field, value, f"{article} {task.input} that is not empty{instead}")
    if inputs and value:
        raise InvalidArgumentError.of_field(field, list(inputs), f"either {task.inputs} or a {task.input}, not both")
    for index, words in enumerate(inputs):
        if not words.strip():
            raise InvalidArgumentError.of_field(f"{field}[{index}]", words, "text that is not empty")
