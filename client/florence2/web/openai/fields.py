"""The fields of a chat completion's request: those that are used, ignored or refused."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from florence2.errors import InvalidArgumentError
from florence2.options import GENERATION_OPTIONS, FilterOptions
from florence2.web.openai.task_choice import input_names

LENGTHS: Final = ("max_completion_tokens", "max_tokens", "max_new_tokens")
"""The names of the option `max_new_tokens`: two of OpenAI's and our own."""
FILTERS: Final = tuple(FilterOptions.__optional_keys__)
OWN: Final = ("priority", "timeout", *FILTERS, *GENERATION_OPTIONS)
"""Options of the client's methods, for `extra_body` of OpenAI's package."""

USED: Final = ("messages", "model", "response_format", "stream", "stream_options", *LENGTHS, *OWN)

IGNORED: Final = frozenset(
    {
        # Sampling: answers are greedy or beam search, and always the same.
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "frequency_penalty", "presence_penalty"),
        # Labels for a provider's records, and hints that change the speed or the style of a chat model.
        *("user", "metadata", "safety_identifier", "service_tier", "prediction", "parallel_tool_calls"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "reasoning_effort", "verbosity"),
    }
)
"""Fields that cannot change the answer of this model, or only ask for what it does anyway."""


class Refusal(NamedTuple):
    """A field that is refused unless its value is one that asks for nothing.

    Attributes:
        harmless: the accepted values, beside null.
        requirement: what is accepted, for the error.
    """

    harmless: tuple[Any, ...]
    requirement: str


_TOOLS: Final = "none, because the model calls no tools"
_SCORES: Final = "none, because there are no probabilities of tokens; results with items have scores"

REFUSED: Final[Mapping[str, Refusal]] = MappingProxyType(
    {
        "n": Refusal((1,), "1, because each request has one answer"),
        "stop": Refusal(("", []), "none, because the model ends its answer itself"),
        "logprobs": Refusal((False,), _SCORES),
        "top_logprobs": Refusal((0,), _SCORES),
        "logit_bias": Refusal(({},), "none, because tokens cannot be biased"),
        "tools": Refusal(([],), _TOOLS),
        "tool_choice": Refusal(("none", "auto"), _TOOLS),
        "functions": Refusal(([],), _TOOLS),
        "function_call": Refusal(("none", "auto"), _TOOLS),
        "audio": Refusal((), "none, because the model has no audio"),
        "modalities": Refusal((["text"],), '["text"]'),
        "web_search_options": Refusal((), "none, because there is no web search"),
        "moderation": Refusal((), "none, because answers are not moderated"),
        "store": Refusal((False,), "false, because completions are not stored"),
    }
)
"""Fields that promise what cannot be kept."""


def known_fields() -> Collection[str]:
    """The names of all fields that a request may have."""
    return {*USED, *IGNORED, *REFUSED, *input_names()}


def check_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Check a request's fields, and return those that are used and not null.

    Raises:
        InvalidArgumentError: a field is unknown, or promises what cannot be kept.
    """
    known = known_fields()
    for name, value in body.items():
        if name not in known:
            raise InvalidArgumentError.of_field(name, value, _known_instead(name, known))
        refusal = REFUSED.get(name)
        if refusal is not None and value is not None and value not in refusal.harmless:
            raise InvalidArgumentError.of_field(name, value, refusal.requirement)
    used = {*USED, *input_names()}
    return {name: value for name, value in body.items() if name in used and value is not None}


def _known_instead(name: str, known: Collection[str]) -> str:
    meant = get_close_matches(name, sorted(known), n=1)
    return f"a field of chat completions{f'; did you mean {meant[0]}?' if meant else ''}"
