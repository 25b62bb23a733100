"""Model ids: a model of the Triton server, a task that its name chooses, and an adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from florence2.adapter_names import check_adapter_name
from florence2.errors import InvalidArgumentError

FORMS: Final = "MODEL, MODEL:TASK, MODEL@ADAPTER or MODEL:TASK@ADAPTER"


class UnknownModelError(InvalidArgumentError):
    """There is no model, task or adapter of this name."""


@dataclass(frozen=True)
class ModelId:
    """A model id of the API, such as `florence2:read-text@invoices`."""

    model: str
    """The name of the model on the Triton server."""
    task: str | None = None
    """The name of the task that answers, as in the path of the REST API; None if the text chooses it."""
    adapter: str | None = None
    """The adapter to answer with; None for none."""

    def __str__(self) -> str:
        task = "" if self.task is None else f":{self.task}"
        return f"{self.model}{task}" if self.adapter is None else f"{self.model}{task}@{self.adapter}"


def parse_model_id(text: str, models: Sequence[str], tasks: Sequence[str]) -> ModelId:
    """The parts of a model id.

    Args:
        text: one of `FORMS`.
        models: the names of the models. One of them may contain a colon or an `@`: the longest that fits is meant.
        tasks: the names of the tasks.

    Raises:
        UnknownModelError: there is no such model or task, or no adapter can have such a name. Its field is `model`.
    """
    for model in sorted(models, key=len, reverse=True):
        rest = text.removeprefix(model)
        if text.startswith(model) and rest[:1] in ("", ":", "@"):
            return _with_parts(text, model, rest, tasks)
    raise _unknown(text, _one_of("model", text, models))


def _with_parts(text: str, model: str, rest: str, tasks: Sequence[str]) -> ModelId:
    before, at, adapter = rest.partition("@")
    task = before.removeprefix(":") if before else None
    if task is not None and task not in tasks:
        raise _unknown(text, _one_of("task", task, tasks))
    if at:
        try:
            check_adapter_name(adapter)
        except InvalidArgumentError as error:
            raise _unknown(text, f"an adapter's name after the @: {error.requirement}") from None
    return ModelId(model, task, adapter if at else None)


def _one_of(kind: str, name: str, known: Sequence[str]) -> str:
    meant = get_close_matches(name, known, n=1)
    hint = f" (did you mean {meant[0]}?)" if meant else ""
    return f"{FORMS} with a {kind} out of {', '.join(known)}{hint}"


def _unknown(text: str, requirement: str) -> UnknownModelError:
    error = UnknownModelError.of_field("model", text, requirement)
    assert isinstance(error, UnknownModelError), "of_field makes an error of its class"
    return error
