"""Chooses the task of a chat: by a token in the text, by the model id, or none, so that the text is a free prompt."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from florence2 import v1
from florence2.errors import InvalidArgumentError
from florence2.tasks import FREE_PROMPT, TASKS, task_of_prompt
from florence2.web.rest.fields import NUMBER_PATTERN, Field, Kind, number_of
from florence2.web.rest.operations import OPERATIONS, RUN, Operation

_COMMA: Final = r"(?:\s*,\s*|\s+)"
_BOX: Final = re.compile(rf"[(\[]?\s*({_COMMA.join([NUMBER_PATTERN] * 4)})\s*[)\]]?")
_LOCATIONS: Final = re.compile(r"(?:<loc_[0-9]{1,3}>\s*){4}")
_REGION: Final = "a region as text: x_min, y_min, x_max, y_max in pixels, or four location tokens"

NAMED_TASKS: Final[Mapping[str, Operation]] = MappingProxyType(
    {name: operation for name, operation in OPERATIONS.items() if name != RUN}
)
"""The tasks that a model id can name: those that have a path of the REST API."""

INPUTS: Final[Mapping[str, Field]] = MappingProxyType(
    {field.name: field for operation in NAMED_TASKS.values() for field in operation.inputs}
)
"""The inputs of all tasks, as fields of the body."""


def choose(text: str, task: str | None, inputs: Mapping[str, Any]) -> v1.TaskRequest:
    """The request of a chat: of the token that begins the text, of the named task, or of a free prompt.

    Args:
        text: the text of the chat's last message.
        task: the name of a task, from the model id; None if that names none.
        inputs: inputs of that task by name, beside the text or in its place.

    Raises:
        InvalidArgumentError: nothing chooses a task, or an input is invalid. The field of an invalid text is
            `messages`.
    """
    text = text.strip()
    token = task_of_prompt(text)
    if token is FREE_PROMPT and task is not None:
        return _named_request(NAMED_TASKS[task], text, inputs)
    for name, value in inputs.items():
        raise InvalidArgumentError.of_field(name, value, "null, because the text chooses the task, not the model id")
    if not text:
        raise InvalidArgumentError.of_field("messages", text, f"text, or a task in the model id: {_choices()}")
    if token.takes_region:
        operation = next(each for each in NAMED_TASKS.values() if each.token == token.token)
        return _region_request(operation, text.removeprefix(token.token).strip())
    return v1.TaskRequest(free_prompt=v1.Prompt(text=text))


def _named_request(operation: Operation, text: str, inputs: Mapping[str, Any]) -> v1.TaskRequest:
    """The request of a named task. If it takes no text, the text is ignored, because chat clients always send one."""
    names = [field.name for field in operation.inputs]
    for name, value in inputs.items():
        if name not in names:
            takes = f"takes {', '.join(names)}" if names else "has no inputs"
            raise InvalidArgumentError.of_field(name, value, f"null, because {operation.name} {takes}")
    required = next((field for field in operation.inputs if field.is_required), None)
    if required is None or required.name in inputs:
        return operation.request(inputs)
    if required.kind is Kind.REGION:
        return _region_request(operation, text)
    return operation.request({required.name: text, **inputs})


def _region_request(operation: Operation, text: str) -> v1.TaskRequest:
    """The request of a task about a region, for a region in text form."""
    if box := _BOX.fullmatch(text):
        return operation.request({"region": list(map(number_of, re.split(_COMMA, box[1])))})
    if _LOCATIONS.fullmatch(text):
        return v1.TaskRequest(free_prompt=v1.Prompt(text=operation.token + re.sub(r"\s", "", text)))
    raise InvalidArgumentError.of_field("messages", text, _REGION)


def _choices() -> str:
    tokens = ", ".join(task.token for task in TASKS if task.token)
    return f"MODEL:TASK with a TASK out of {', '.join(NAMED_TASKS)}; or a text that begins with one of {tokens}"
