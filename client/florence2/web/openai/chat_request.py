"""Reads the body of a chat completion's request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from florence2 import v1
from florence2.client.filters import Filters
from florence2.errors import InvalidArgumentError
from florence2.options import GENERATION_OPTIONS, RunOptions, TaskOptions, set_options
from florence2.plans import check_plan, is_single_step
from florence2.tasks import task_of
from florence2.web.openai.field_names import FieldNames
from florence2.web.openai.fields import LENGTH, LENGTHS, read_fields
from florence2.web.openai.growing_text import TEXT_FORMS
from florence2.web.openai.messages import ChatImage, read_messages
from florence2.web.openai.model_ids import ModelId, parse_model_id
from florence2.web.openai.task_choice import INPUTS, NAMED_TASKS, choose


@dataclass(frozen=True)
class ChatRequest:
    """A request for a chat completion."""

    model: ModelId
    request: v1.TaskRequest
    """The task or the prompt, with adapter and generation options."""
    image: ChatImage
    options: RunOptions
    """The caller's priority, timeout and filters."""
    names: FieldNames
    is_stream: bool = False
    includes_usage: bool = False
    """Whether the last chunk of a stream has the usage."""

    @property
    def is_text(self) -> bool:
        """Whether the result is a text, rather than something that is written as JSON."""
        return is_single_step(self.request) and task_of(self.request).answer in TEXT_FORMS


def read_chat(body: Any, models: Sequence[str]) -> ChatRequest:
    """Check a body as far as possible without the image.

    Args:
        body: the JSON value.
        models: the names of the models; the first is the default.

    Raises:
        InvalidArgumentError: the body is invalid. The error's field is that of the body.
    """
    if not isinstance(body, dict):
        raise InvalidArgumentError.of_field("body", body, "a JSON object")
    given = read_fields(body)
    model = parse_model_id(given.get("model", models[0]), models, list(NAMED_TASKS))
    prompt = read_messages(body.get("messages"))
    inputs = {name: value for name, value in given.items() if name in INPUTS}
    length = _length_field(given)
    names = FieldNames(inputs, prompt.image.field, length)
    with names.in_errors():
        request = choose(prompt.text, model.task, inputs)
        set_options(request, _task_options(given, model, length))
        check_plan(request)
        options = _run_options(given, request)
    is_stream, includes_usage = given.get("stream", False), _includes_usage(given)
    chat = ChatRequest(model, request, prompt.image, options, names, is_stream, includes_usage)
    _check_format(given, chat)
    return chat


def _task_options(given: Mapping[str, Any], model: ModelId, length: str) -> TaskOptions:
    options = {name: given[name] for name in GENERATION_OPTIONS if name in given}
    return cast(TaskOptions, {**options, LENGTH: given.get(length), "adapter": model.adapter})


def _run_options(given: Mapping[str, Any], request: v1.TaskRequest) -> RunOptions:
    options = cast(RunOptions, {name: given[name] for name in RunOptions.__optional_keys__ if name in given})
    Filters.of_options(options).check(request)
    return options


def _length_field(given: Mapping[str, Any]) -> str:
    """The name that the body has for `max_new_tokens`."""
    names = [name for name in LENGTHS if name in given]
    if len(names) > 1:
        raise InvalidArgumentError.of_field(names[1], given[names[1]], f"null, because {names[0]} is given")
    return names[0] if names else LENGTH


def _includes_usage(given: Mapping[str, Any]) -> bool:
    include = given.get("stream_options", {}).get("include_usage")
    if not isinstance(include, bool | None):
        raise InvalidArgumentError.of_field("stream_options.include_usage", include, "true or false")
    return bool(include)


def _check_format(given: Mapping[str, Any], chat: ChatRequest) -> None:
    """Refuse a form of the answer that the task does not have."""
    name = given.get("response_format", {}).get("type", "text")
    if name == "text" or (name == "json_object" and not chat.is_text):
        return
    if name == "json_object":
        requirement = '"text", because the result of this task is a text'
    else:
        requirement = '"text", or "json_object" for a task whose result is not a text; no schema can be imposed'
    raise InvalidArgumentError.of_field("response_format.type", name, requirement)
