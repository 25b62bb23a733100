"""The fields of a chat completion's request: those that are used, ignored or refused."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from florence2.errors import InvalidArgumentError
from florence2.web.openai.task_choice import INPUTS
from florence2.web.rest.fields import Field, Kind
from florence2.web.rest.operations import OPERATIONS

LENGTH: Final = "max_new_tokens"
LENGTHS: Final = ("max_completion_tokens", "max_tokens", LENGTH)
"""The names of that option: OpenAI's two, and our own."""

_OPTIONS: Final = {field.name: field for operation in OPERATIONS.values() for field in operation.options}
# The model id names the adapter.
_OWN: Final = {name: field for name, field in _OPTIONS.items() if name != "adapter"}
_OPENAIS: Final = [
    Field("response_format", Kind.MESSAGE, "The form of the answer."),
    Field("stream_options", Kind.MESSAGE, "What a stream contains."),
    *(replace(_OWN[LENGTH], name=name) for name in LENGTHS),
]

USED: Final[Mapping[str, Field]] = MappingProxyType({**INPUTS, **_OWN, **{field.name: field for field in _OPENAIS}})
"""The fields that matter, beside `messages`: OpenAI's, and those of the REST API."""

IGNORED: Final = frozenset(
    {
        # Sampling: answers are those of greedy or beam search, and always the same.
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "frequency_penalty", "presence_penalty"),
        # Labels for a provider's records, and hints for the speed or the style of a chat model.
        *("user", "metadata", "safety_identifier", "service_tier", "prediction", "parallel_tool_calls"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "verbosity"),
    }
)
"""Fields that cannot change the answer of this model."""


class Refusal(NamedTuple):
    """A field that is refused unless its value requests nothing.

    Attributes:
        harmless: the accepted values, beside null.
        requirement: what is accepted, for the error.
    """

    harmless: tuple[Any, ...]
    requirement: str


_TOOLS: Final = "null, because the model calls no tools"
_NO_PROBABILITIES: Final = "because token probabilities are not available; results with items have scores"

REFUSED: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
        "n": Refusal((1,), "1, because a request has one answer"),
        "stop": Refusal(("", []), "null, because stop sequences are not supported"),
        "logprobs": Refusal((False,), f"false, {_NO_PROBABILITIES}"),
        "top_logprobs": Refusal((0,), f"0, {_NO_PROBABILITIES}"),
        "logit_bias": Refusal(({},), "null, because tokens cannot be biased"),
        "tools": Refusal(([],), _TOOLS),
        "tool_choice": Refusal(("none", "auto"), _TOOLS),
        "functions": Refusal(([],), _TOOLS),
        "function_call": Refusal(("none", "auto"), _TOOLS),
        "audio": Refusal((), "null, because the model has no audio"),
        "modalities": Refusal((["text"],), '["text"]'),
        "web_search_options": Refusal((), "null, because there is no web search"),
        "moderation": Refusal((), "null, because answers are not moderated"),
        "store": Refusal((False,), "false, because completions are not stored"),
    }
)
"""Fields that have no equivalent."""


def read_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the fields that matter and are not null, of the fields' types. `messages` is not among them.

    Raises:
        InvalidArgumentError: a field is unknown, has the wrong type, or has no equivalent.
    """
    return {
        name: USED[name].of_json(value) for name, value in body.items() if value is not None and _matters(name, value)
    }


def _matters(name: str, value: Any) -> bool:
    if name in REFUSED and value not in REFUSED[name].harmless:
        raise InvalidArgumentError.of_field(name, value, REFUSED[name].requirement)
    if name in USED or name == "messages":
        return name in USED
    if name not in IGNORED and name not in REFUSED:
        raise InvalidArgumentError.of_field(name, value, _known_instead(name))
    return False


def _known_instead(name: str) -> str:
    meant = get_close_matches(name, sorted({"messages", *USED, *IGNORED, *REFUSED}), n=1)
    return f"a field of chat completions{f'; did you mean {meant[0]}?' if meant else ''}"
