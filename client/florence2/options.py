"""The keywords of a client's methods: the adapter and the generation options of a request, and others.

`TaskOptions` declares each generation option once: its name, type, range, default and documentation. The client's
keywords, the range checks of client, stub and engine, the engine's defaults and the table in the documentation follow
from it. The fields of `florence2.v1.GenerationOptions` have the same names.
"""

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias, TypedDict, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import FieldDescriptor

from florence2 import v1
from florence2._arguments import refuse_unknown
from florence2.adapter_names import check_adapter_name
from florence2.errors import InvalidArgumentError, require_type, wrong_type

MOST_BEAMS: Final = 8
"""The most beams that a request may have."""

OptionValue: TypeAlias = bool | int | float | Literal["never"]

EARLY_STOPPING: Final[Mapping[OptionValue, v1.EarlyStopping]] = MappingProxyType(
    {
        True: v1.EarlyStopping.EARLY_STOPPING_FIRST,
        False: v1.EarlyStopping.EARLY_STOPPING_HEURISTIC,
        "never": v1.EarlyStopping.EARLY_STOPPING_NEVER,
    }
)
"""The values of `early_stopping`, which are those of Hugging Face `generate()`, each with its value in the message."""

_DOCSTRING_WIDTH: Final = 100
_TYPE_NAMES: Final[Mapping[type, str]] = MappingProxyType({int: "an int", float: "a number", bool: "a bool"})


@dataclass(frozen=True)
class Limit:
    """A maximum and its cause, such as the setting that could be raised, the checkpoint, or another option."""

    value: int
    cause: str = ""

    def __str__(self) -> str:
        """The limit as it appears in error messages."""
        return f"{self.value} ({self.cause})" if self.cause else str(self.value)


@dataclass(frozen=True)
class Option:
    """A generation option.

    Attributes:
        doc: its effect, in Markdown.
        default: the value if neither the request nor the checkpoint's generation config sets it; None for the highest
            value that the server allows.
        least: the lowest value.
        most: the highest value, or a description of what limits it.
        choices: the values of an enumeration, each with its value in the message.
        name: the keyword, and the field of `GenerationOptions`. Read from the declaration, like `type`.
        type: of the values; an enumeration may also have values of other types.
    """

    doc: str
    default: OptionValue | None
    least: float = -inf
    most: float | str = inf
    choices: Mapping[OptionValue, int] | None = None
    name: str = ""
    type: type = object

    @property
    def values(self) -> str:
        """The accepted values: `1 to 8`, or `True or False`."""
        if self.choices is None and self.type is not bool:
            return f"{self.least} to {self.most if isinstance(self.most, str) else format(self.most, ',')}"
        choices = self.choices or (True, False)
        *others, last = [str(choice) if isinstance(choice, bool) else f'"{choice}"' for choice in choices]
        return f"{', '.join(others)} or {last}"

    def check(self, value: OptionValue, limit: Limit | None = None) -> None:
        """Check that a value is in range.

        Args:
            value: has the option's type.
            limit: the highest value, where it is not the declared one.

        Raises:
            InvalidArgumentError: the value is out of range. The message names it and the limits.
        """
        most = limit.value if limit else inf if isinstance(self.most, str) else self.most
        if isinstance(value, str) or self.least <= value <= most:  # NaN is in no range
            return
        limits = f"at least {self.least}" if most == inf else f"{self.least} to {limit or most}"
        raise InvalidArgumentError.of_field(f"generation.{self.name}", value, limits)


class CallOptions(TypedDict, total=False):
    """Keywords of every method. They do not change the answer.

    Keys:
        timeout: seconds for the whole call, above 0: reading and encoding the image, retries, waiting in the server's
            queue, and the answer. Each attempt sends the server the time that is left, so that it does not work on a
            request whose caller has given up. None: no limit. Omitted: the client's own timeout.
        priority: 1 (served first) to 3 (served last) among the requests in the server's queue. 0, None or omitted:
            the server's default, 2.
        request_id: identifies the request in the server's log. None or omitted: a random id.
    """

    timeout: float | None
    priority: int | None
    request_id: str | None


class FilterOptions(TypedDict, total=False):
    """Keywords that select items of a result. The client applies them to the decoded answer; they are not sent.

    Items keep the model's order. A keyword that cannot apply raises an `InvalidArgumentError`: all of them if the
    results have no items, `labels` if they have no labels, and all of them with `analyze_regions`.

    Keys:
        min_score: the lowest score of an item, 0 to 1. If the server sends no scores, an error is raised.
        max_items: the maximum number of items, at least 1: those with the highest scores.
        labels: the accepted labels, a collection of str, exactly as the model writes them. For a text region, its text.
    """

    min_score: float | None
    max_items: int | None
    labels: Collection[str] | None


class RunOptions(CallOptions, FilterOptions, total=False):
    """Keywords of `run`: those of `CallOptions` and `FilterOptions`."""


class TaskOptions(RunOptions, total=False):
    """Keywords of the task methods: those of `RunOptions`, the adapter, and the generation options.

    If a generation option is None or omitted, the checkpoint's generation config decides; if that does not set it
    either, the default does.

    Keys:
        adapter: name of the adapter (LoRA) to answer with, one of those that the server has, which `server_info` lists.
            It applies to all steps of a cascade, and with `run_tasks` to each request that has none itself. None or
            omitted: no adapter.
    """

    adapter: str | None
    max_new_tokens: Annotated[
        int | None,
        Option(
            "Maximum number of tokens in the answer. If an answer is cut off there, the task methods raise "
            "`TruncatedAnswerError`.",
            default=None,
            least=1,
            most="the number of positions that the server reserves, 1,024 unless configured otherwise",
        ),
    ]
    min_new_tokens: Annotated[
        int | None,
        Option("Minimum number of tokens before the answer may end.", default=0, least=0, most="max_new_tokens"),
    ]
    num_beams: Annotated[
        int | None,
        Option("Number of beams; 1 is greedy search. Official checkpoints set 3.", default=1, least=1, most=MOST_BEAMS),
    ]
    length_penalty: Annotated[
        float | None,
        Option(
            "Exponent of the length by which a beam's summed log-probability is divided: above 0 favors long answers, "
            "below 0 short ones. No effect on greedy search.",
            default=1.0,
            least=-10,
            most=10,
        ),
    ]
    early_stopping: Annotated[
        bool | Literal["never"] | None,
        Option(
            "When beam search stops, as in Hugging Face `generate()`. `True`: as soon as there are `num_beams` "
            'complete answers. `False`: when a better one is unlikely. `"never"`: only when a better one is '
            "impossible. No effect on greedy search.",
            default=False,
            choices=EARLY_STOPPING,
        ),
    ]
    no_repeat_ngram_size: Annotated[
        int | None,
        Option(
            "No sequence of this many tokens occurs twice in the answer; 0 disables the rule.", 0, least=0, most=1024
        ),
    ]
    repetition_penalty: Annotated[
        float | None,
        Option(
            "The scores of tokens that are already in the answer are divided by it, or multiplied by it if they are "
            "below 0: above 1 discourages repetition, below 1 encourages it, 1 disables the rule. As in `generate()`, "
            "the end token counts as being in the answer from the start.",
            default=1.0,
            least=0.1,
            most=10,
        ),
    ]
    suppress_bos: Annotated[
        bool | None,
        Option(
            "`True`: the answer does not contain the token `<s>`, except where the checkpoint forces it.", default=False
        ),
    ]


def _declared_options() -> dict[str, Option]:
    options = {}
    for name, hint in get_type_hints(TaskOptions, include_extras=True).items():
        if get_origin(hint) is Annotated:
            values, option = get_args(hint)
            options[name] = replace(option, name=name, type=get_args(values)[0])
    return options


GENERATION_OPTIONS: Final[Mapping[str, Option]] = MappingProxyType(_declared_options())
"""The generation options by name, as `TaskOptions` declares them."""


def options_table() -> str:
    """The generation options as a Markdown table, for the documentation."""
    options = GENERATION_OPTIONS.values()
    rows = [f"| `{option.name}` | {option.values} | {_default(option)} | {option.doc} |" for option in options]
    return "\n".join(["| Option | Values | Default | Effect |", "|---|---|---|---|", *rows])


def options_docstring(indent: str) -> str:
    """The generation options as items of a docstring's section, each line indented by `indent`."""
    options = GENERATION_OPTIONS.values()
    items = [f"{option.name}: {option.values}; default: {_default(option)}. {option.doc}" for option in options]
    wrapper = textwrap.TextWrapper(
        _DOCSTRING_WIDTH, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
    )
    return "\n".join(map(wrapper.fill, items))


def _default(option: Option) -> str:
    return "the highest value" if option.default is None else str(option.default)


# Under python -OO there is no docstring.
TaskOptions.__doc__ = f"{(TaskOptions.__doc__ or '').rstrip()}\n{options_docstring('        ')}\n    "


def set_options(request: v1.TaskRequest, options: TaskOptions) -> None:
    """Write the adapter and the generation options that are given into a request.

    Ranges are not checked here: `florence2.prompts.check_request` does that.

    Raises:
        TypeError: an unknown keyword, or a value of the wrong type.
        InvalidArgumentError: a value that cannot be sent, or that is no name of an adapter.
    """
    refuse_unknown(options, TaskOptions.__optional_keys__)
    adapter = options.get("adapter")
    if adapter is not None:
        require_type("adapter", adapter, str)
        check_adapter_name(adapter)  # here, because in the message an empty name is none
        request.adapter = adapter
    for name, option in GENERATION_OPTIONS.items():
        value = options.get(name)
        if value is not None:
            _set_option(request.generation, option, value)


def _set_option(generation: v1.GenerationOptions, option: Option, value: object) -> None:
    if option.choices is not None:
        value = _chosen(option, option.choices, value)
    # Protobuf would accept True as 1, and 5 as True.
    elif (option.type is bool) != isinstance(value, bool):
        raise wrong_type(option.name, value, _TYPE_NAMES[option.type])
    try:
        setattr(generation, option.name, value)
    except TypeError as error:
        raise wrong_type(option.name, value, _TYPE_NAMES[option.type]) from error
    except ValueError as error:
        field = f"generation.{option.name}"
        raise InvalidArgumentError.of_field(field, value, "a number that fits into 32 bits") from error


def _chosen(option: Option, choices: Mapping[Any, int], value: object) -> int:
    # The type first: 1 equals True, and a list is not hashable.
    if not isinstance(value, tuple(map(type, choices))):
        raise wrong_type(option.name, value, option.values)
    if value not in choices:
        raise InvalidArgumentError.of_field(f"generation.{option.name}", value, option.values)
    return choices[value]


def check_generation(
    generation: v1.GenerationOptions, limits: Mapping[str, Limit] = MappingProxyType({})
) -> dict[str, OptionValue]:
    """Check the generation options that a request sets.

    Args:
        generation: the options.
        limits: the highest values that a server accepts, by name, where they are lower than the declared ones.

    Returns:
        The values of the options that are set, by name, as `TaskOptions` has them.

    Raises:
        InvalidArgumentError: an option is out of range. The message names it, its value and the limits.
    """
    given = {field.name: _value(field, value) for field, value in generation.ListFields()}
    if "max_new_tokens" in given:
        limits = {**limits, "min_new_tokens": Limit(int(given["max_new_tokens"]), "max_new_tokens")}
    for name, value in given.items():
        GENERATION_OPTIONS[name].check(value, limits.get(name))
    return given


def _value(field: FieldDescriptor, value: Any) -> Any:
    """A field's value as `TaskOptions` has it."""
    choices = GENERATION_OPTIONS[field.name].choices
    if choices is None:
        return value
    for choice, number in choices.items():
        if number == value:
            return choice
    assert field.enum_type is not None, "only an enumeration has choices"
    known = ", ".join(field.enum_type.values_by_name)
    raise InvalidArgumentError.of_field(f"generation.{field.name}", value, f"one of {known}")
