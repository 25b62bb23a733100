"""Chooses the task of a chat: by a token in the text, by the model id, or none, so that the text is a free prompt."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from florence2 import v1
from florence2.client import AsyncClient, typed_plans, typed_requests
from florence2.client.typed_requests import TypedRequest
from florence2.errors import InvalidArgumentError
from florence2.tasks import FREE_PROMPT, TASKS, task_of_prompt

_CASCADES: Final = ("ground_caption", "analyze_regions")
_NOT_INPUTS: Final = ("self", "image", "options")
_NUMBER: Final = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_COMMA: Final = r"(?:\s*,\s*|\s+)"
_BOX: Final = re.compile(rf"[(\[]?\s*({_COMMA.join([_NUMBER] * 4)})\s*[)\]]?")
_LOCATIONS: Final = re.compile(r"(?:<loc_[0-9]{1,3}>\s*){4}")
_REGION: Final = "a region as text: x_min, y_min, x_max, y_max in pixels, or four location tokens"


@dataclass(frozen=True)
class NamedTask:
    """A task that a model id can name.

    Attributes:
        name: as in the path of the REST API: the client's method with hyphens, such as `read-text`.
        inputs: the arguments of that method that choose what to do, each with its default, or `Parameter.empty`.
        token: the token of the task whose input the text is; empty if there is no such input.
        input: that argument; empty if there is none.
    """

    name: str
    inputs: Mapping[str, Any]
    token: str = ""
    input: str = ""

    def request(self, text: str, inputs: Mapping[str, Any]) -> v1.TaskRequest:
        """The request for a text, and for the inputs that are given beside it.

        Args:
            text: the input, unless that is in `inputs`. Ignored if the task has no input.
            inputs: arguments by name.

        Raises:
            TypeError: an input has the wrong type.
            InvalidArgumentError: the task does not have an input of this name, or its value is not one of those
                possible. The field of an invalid text is `messages`.
        """
        for name, value in inputs.items():
            if name not in self.inputs:
                known = f"none, because {self.name} takes {', '.join(self.inputs) or 'no inputs'}"
                raise InvalidArgumentError.of_field(name, value, known)
        if self.input == "region" and "region" not in inputs:
            return region_request(self, text)
        from_text = {self.input: text} if self.input else {}
        return self.built({**self.inputs, **from_text, **inputs})

    def built(self, arguments: Mapping[str, Any]) -> v1.TaskRequest:
        """The request that the client's method sends for these arguments."""
        method = self.name.replace("-", "_")
        build = getattr(typed_plans if method in _CASCADES else typed_requests, method)
        built = build(**arguments)
        request = built.request if isinstance(built, TypedRequest) else built
        assert isinstance(request, v1.TaskRequest), "what all builders make"
        return request


@cache
def named_tasks() -> Mapping[str, NamedTask]:
    """The tasks and cascades by name."""
    tasks = {task.client_method: task for task in reversed(TASKS)}
    methods = [*dict.fromkeys(task.client_method for task in TASKS), *_CASCADES]
    named = []
    for method in methods:
        parameters = inspect.signature(getattr(AsyncClient, method)).parameters.values()
        inputs = {each.name: each.default for each in parameters if each.name not in _NOT_INPUTS}
        task = tasks.get(method)
        if task is None or task.input is None:
            named.append(NamedTask(_hyphened(method), inputs))
        else:
            (argument,) = inputs
            named.append(NamedTask(_hyphened(method), inputs, task.token, argument))
    return {task.name: task for task in named}


def input_names() -> frozenset[str]:
    """The names of all inputs of all named tasks."""
    return frozenset(name for task in named_tasks().values() for name in task.inputs)


def choose(text: str, task: str | None, inputs: Mapping[str, Any]) -> v1.TaskRequest:
    """The request of a chat: of the token that begins the text, of the named task, or of a free prompt.

    Args:
        text: the text of the chat's last message.
        task: the name of a task, from the model id; None if that names none.
        inputs: inputs of that task other than the text, by name.

    Raises:
        TypeError: an input has the wrong type.
        InvalidArgumentError: nothing chooses a task, or an input is invalid. The field of an invalid text is
            `messages`.
    """
    text = text.strip()
    token = task_of_prompt(text)
    if token is FREE_PROMPT and task is not None:
        return named_tasks()[task].request(text, inputs)
    if inputs:
        name, value = next(iter(inputs.items()))
        raise InvalidArgumentError.of_field(name, value, "none, because the text chooses the task, not the model")
    if not text:
        raise InvalidArgumentError.of_field("messages", text, f"text, or a task in the model id: {_choices()}")
    if token.takes_region:
        named = named_tasks()[_hyphened(token.client_method)]
        return region_request(named, text.removeprefix(token.token).strip())
    return v1.TaskRequest(free_prompt=v1.Prompt(text=text))


def region_request(task: NamedTask, text: str) -> v1.TaskRequest:
    """The request of a task about a region, for a region in text form.

    Raises:
        InvalidArgumentError: the text is something else.
    """
    if box := _BOX.fullmatch(text):
        return task.built({task.input: [float(number) for number in re.findall(_NUMBER, box[1])]})
    if _LOCATIONS.fullmatch(text):
        return v1.TaskRequest(free_prompt=v1.Prompt(text=task.token + re.sub(r"\s", "", text)))
    raise InvalidArgumentError.of_field("messages", text, _REGION)


def _choices() -> str:
    tokens = ", ".join(task.token for task in TASKS if task.token)
    return f"MODEL:TASK with a TASK out of {', '.join(named_tasks())}; or a text that begins with one of {tokens}"


def _hyphened(method: str) -> str:
    return method.replace("_", "-")
