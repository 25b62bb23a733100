"""The table of REST operations: one for each task method of the client, and `run`.

Names, arguments, choices and defaults are those of `AsyncClient`'s methods, and the ranges of options those of
`florence2.options`.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from florence2 import v1
from florence2.client import AsyncClient, Client, typed_plans, typed_requests
from florence2.client.typed_requests import Phrases, Region
from florence2.options import GENERATION_OPTIONS, Option
from florence2.prompts import LOWEST_PRIORITY
from florence2.tasks import TASKS, AnswerForm
from florence2.web.rest.fields import Field, Kind

RUN: Final = "run"
STREAM_FIELD: Final = "stream"
IMAGE_FIELD: Final = "image"
_CASCADES: Final = ("ground_caption", "analyze_regions")
_ANY_RESULT: Final = "Outcome"
_WITHOUT_ITEMS: Final = ("Text", "RegionAnalysis")

_INPUTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "detail": "One sentence, a few, or a paragraph.",
        "caption": "What the image shows, such as `a dog beside a green car`, or several phrases: an array in JSON, a "
        "repeated field in a form. Not blank.",
        "query": "What to look for, such as `a green car`, or several queries: an array in JSON, a repeated field in a "
        "form. Not blank.",
        "expression": "What to outline, such as `the dog on the left`. Not blank.",
        "region": "A box in pixels of the image as displayed: `[x_min, y_min, x_max, y_max]` in JSON, "
        "`x_min,y_min,x_max,y_max` in a form. Inside the image, neither empty nor inverted.",
        "prompt": "The prompt, passed to the model unchanged, such as `<DocVQA>What is the total?`. Not blank.",
        "region_task": "What to do with each region; `segmentation` turns boxes into outlines.",
        "detector": "What finds the regions: objects (the default), regions with descriptions, or proposals. Neither "
        "with `caption` nor with `query`.",
        "max_regions": "The maximum number of regions, the first ones that were found. By default all.",
    }
)
_ALTERNATIVE: Final = "Instead of `detector`: "
_RUN_DESCRIPTION: Final = (
    "Send any request: a task, a prompt, a cascade or a task list, with its own adapter and generation options."
)


@dataclass(frozen=True)
class Operation:
    """A path, and the request that it sends.

    Attributes:
        name: of the path `/v1/NAME`, e.g. `"read-text"`.
        method: of the client, e.g. `"read_text"`.
        token: the official token, empty for a cascade, a free prompt and `run`.
        description: what it does.
        inputs: the task's own fields.
        options: all other fields, except the image.
        result: the name of the result's class; `"Outcome"` if it may be any of them.
        builder: makes the request from the values of the inputs.
    """

    name: str
    method: str
    token: str
    description: str
    inputs: tuple[Field, ...]
    options: tuple[Field, ...]
    result: str
    builder: Callable[..., v1.TaskRequest]

    @property
    def path(self) -> str:
        """The path."""
        return f"/v1/{self.name}"

    @property
    def title(self) -> str:
        """A title, for lists."""
        return self.name.replace("-", " ").capitalize()

    @property
    def is_cascade(self) -> bool:
        """Whether answers have several steps."""
        return self.method in _CASCADES

    @property
    def fields(self) -> dict[str, Field]:
        """All fields except the image, by name."""
        return {field.name: field for field in (*self.inputs, *self.options)}

    def request(self, values: Mapping[str, Any]) -> v1.TaskRequest:
        """The request for the values of the inputs that are given.

        Raises:
            InvalidArgumentError: a value is not accepted.
        """
        given = {field.name: values.get(field.name) for field in self.inputs}
        defaults = {field.name: field.default for field in self.inputs}
        return self.builder(**{name: defaults[name] if value is None else value for name, value in given.items()})


def _operations() -> Iterator[Operation]:
    for method in dict.fromkeys(task.client_method for task in TASKS):
        yield _of_method(method, _single(getattr(typed_requests, method)))
    for method in _CASCADES:
        yield _of_method(method, getattr(typed_plans, method))
    request = Field("request", Kind.MESSAGE, "A `florence2.v1.TaskRequest` in proto3 JSON.", is_required=True)
    options = (*_call_fields(), *_filter_fields(), _STREAM)
    yield Operation(RUN, RUN, "", _RUN_DESCRIPTION, (request,), options, _ANY_RESULT, _no_builder)


def _single(build: Callable[..., typed_requests.TypedRequest[Any]]) -> Callable[..., v1.TaskRequest]:
    return lambda **values: build(**values).request


def _no_builder(**values: Any) -> v1.TaskRequest:
    raise NotImplementedError(f"run: the request is in the body, not made from {sorted(values)}")


def _of_method(method: str, builder: Callable[..., v1.TaskRequest]) -> Operation:
    token = next((task.token for task in TASKS if task.client_method == method), "")
    result = get_type_hints(getattr(AsyncClient, method))["return"].__name__
    filters = () if result in _WITHOUT_ITEMS else tuple(_filter_fields(has_labels=_has_labels(method)))
    generation = map(_option_field, GENERATION_OPTIONS.values())
    options = (*_call_fields(), _ADAPTER, *generation, *filters, _STREAM)
    return Operation(
        name=method.replace("_", "-"),
        method=method,
        token=token,
        description=_summary(method),
        inputs=tuple(_inputs(method)),
        options=options,
        result=result,
        builder=builder,
    )


def _has_labels(method: str) -> bool:
    forms = {task.answer for task in TASKS if task.client_method == method}
    return forms.isdisjoint({AnswerForm.BOXES, AnswerForm.POLYGONS})


def _summary(method: str) -> str:
    """The first paragraph of a method's docstring."""
    documentation = inspect.getdoc(getattr(Client, method)) or ""  # none under python -OO
    return documentation.partition("\n\n")[0].replace("\n", " ")


def _inputs(method: str) -> Iterator[Field]:
    function = getattr(AsyncClient, method)
    hints = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in ("self", IMAGE_FIELD, "options"):
            yield _input(name, hints[name], parameter, is_alternative=method == "analyze_regions")


def _input(name: str, hint: Any, parameter: inspect.Parameter, *, is_alternative: bool) -> Field:
    kind, choices = _kind(hint)
    is_required = parameter.default is inspect.Parameter.empty
    description = f"{_ALTERNATIVE}{_INPUTS[name]}" if is_alternative and kind is Kind.PHRASES else _INPUTS[name]
    default = None if is_required else parameter.default
    least = 1 if kind is Kind.INTEGER else -math.inf
    return Field(name, kind, description, is_required, choices, default, least)


def _kind(hint: Any) -> tuple[Kind, tuple[Any, ...]]:
    """The kind and the choices of an argument's values, from its type."""
    if NoneType in get_args(hint):
        hint = Union[tuple(each for each in get_args(hint) if each is not NoneType)]  # noqa: UP007 - of values
    if get_origin(hint) is Literal:
        return Kind.CHOICE, get_args(hint)
    return {str: Kind.TEXT, int: Kind.INTEGER, Phrases: Kind.PHRASES, Region: Kind.REGION}[hint], ()


def _call_fields() -> Iterator[Field]:
    """The fields of every operation that are not about the answer's content."""
    yield Field("model", Kind.TEXT, "The model that answers, one of those that `GET /v1/server` lists.")
    yield Field(
        "priority",
        Kind.INTEGER,
        f"1 (served first) to {LOWEST_PRIORITY} (served last) among the requests in the server's queue; 0 for the "
        "server's default, 2.",
        least=0,
        most=LOWEST_PRIORITY,
    )
    yield Field("timeout", Kind.NUMBER, "Seconds for the whole request.", above=0)


def _filter_fields(*, has_labels: bool = True) -> Iterator[Field]:
    yield Field("min_score", Kind.NUMBER, "The lowest score of an item.", least=0, most=1)
    yield Field("max_items", Kind.INTEGER, "The maximum number of items: those with the highest scores.", least=1)
    if has_labels:
        yield Field(
            "labels",
            Kind.LABELS,
            "The accepted labels, exactly as the model writes them: an array in JSON, a repeated field in a form. For "
            "a text region, its text.",
        )


def _option_field(option: Option) -> Field:
    kinds = {int: Kind.INTEGER, float: Kind.NUMBER, bool: Kind.BOOLEAN}
    kind = Kind.CHOICE if option.choices else kinds[option.type]
    choices = tuple(choice for choice in option.choices or () if isinstance(choice, str | bool))
    most = math.inf if isinstance(option.most, str) else option.most
    return Field(option.name, kind, option.doc, choices=choices, least=option.least, most=most)


_ADAPTER: Final = Field(
    "adapter",
    Kind.TEXT,
    "The adapter (LoRA) to answer with, one of those that `GET /v1/server` lists. By default none.",
)
_STREAM: Final = Field(
    STREAM_FIELD,
    Kind.BOOLEAN,
    "Whether to send events while the answer is generated, as the header `Accept: text/event-stream` does.",
)

OPERATIONS: Final[Mapping[str, Operation]] = MappingProxyType({each.name: each for each in _operations()})
"""All operations by name, in the order of the tasks; `run` is the last."""
