"""The body's names for the fields of requests and arguments, for errors."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from florence2 import v1
from florence2.errors import InvalidArgumentError

_TASKS: Final = frozenset(field.name for field in v1.TaskRequest.DESCRIPTOR.oneofs_by_name["task"].fields)
# Fields of a task's message whose argument in the client has another name.
_ARGUMENTS: Final = {"phrases": "caption", "queries": "query", "text": "prompt"}


@dataclass(frozen=True)
class FieldNames:
    """Names errors of the client and the server for the caller of a chat completion.

    Attributes:
        inputs: the task's inputs that are fields of the body. All others come from the text.
        image: the path of the image in the body.
        length: the body's name for `max_new_tokens`.
    """

    inputs: Collection[str]
    image: str
    length: str

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """Replace the field of an InvalidArgumentError by the body's name for it."""
        try:
            yield
        except InvalidArgumentError as error:
            raise self.renamed(error) from error

    def renamed(self, error: Exception) -> Exception:
        """The same error, with the body's name for its field if it is an InvalidArgumentError."""
        if not isinstance(error, InvalidArgumentError) or error.field is None:
            return error
        name = self.of(error.field)
        renamed = type(error)(str(error).replace(error.field, name, 1))
        renamed.field, renamed.value, renamed.requirement = name, error.value, error.requirement
        renamed.request_id, renamed.url = error.request_id, error.url
        return renamed

    def of(self, path: str) -> str:
        """The body's name for a field, such as `messages` for `phrase_grounding.caption`."""
        path = path.removeprefix("generation.")
        head, _, rest = path.partition(".")
        if head == "prompt" or head in _TASKS:
            return self._input(head, rest)
        names = {"adapter": "model", "image": self.image, "max_new_tokens": self.length, "timeout_seconds": "timeout"}
        return names.get(path, path)

    def _input(self, head: str, rest: str) -> str:
        steps = [step.partition("[")[0] for step in rest.split(".")] if rest else [head]
        arguments = [_ARGUMENTS.get(step, step) for step in steps]
        return next((each for each in arguments if each in self.inputs), "messages")
