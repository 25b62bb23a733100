"""`adapter_config.json` as peft writes it: what it says about the tensors next to it."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from florence2_server.engine.errors import AdapterError

CONFIG_FILE = "adapter_config.json"

_T = TypeVar("_T")

# They describe the training or the base model, or choose modules that the tensors' names show as well. peft ignores
# `fan_in_fan_out` for the layers that Florence-2 has.
_INERT = frozenset(
    (
        *("task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        *("lora_dropout", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "velora_config"),
    )
)
_READ = frozenset(
    (
        *("peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "bias"),
        *("init_lora_weights", "modules_to_save", "trainable_token_indices"),
    )
)
# Options of which an adapter is more than low-rank factors and rows of tokens.
_UNSUPPORTED = {
    "use_dora": "DoRA is not supported",
    "lora_bias": "biases are not supported",
    "layer_replication": "added layers are not supported",
    "target_parameters": "only layers can be targets",
    "swift_type": "this is ms-swift's own format, which swift export --to_peft_format true converts",
}
# With any other one, such as PiSSA's, peft changes the base model's weights when it loads an adapter.
_INITIALIZATIONS = (True, False, None, "gaussian", "orthogonal", "eva")
_EMBEDDING_MODULES = ("shared", "embed_tokens", "lm_head")
# Patterns are regular expressions from a file that may be hostile. These limits rule out backtracking that takes long.
_MOST_OPERATORS = {"*+?{": 2, "(": 2, "|": 8}
_MOST_PATTERNS, _LONGEST_PATTERN = 2000, 1000  # more than Florence-2 has layers, and than eight names take
_LARGEST_ALPHA = 1e38  # larger ones are no float32
_LONGEST_VALUE = 80  # characters of a value in an error
_REPEATED_GROUP = re.compile(r"\)[*+?{]")


@dataclass(frozen=True)
class AdapterConfig:
    """What is needed to interpret an adapter's tensors. Modules have their names in the adapter's own layout.

    Attributes:
        rank: of modules that no pattern matches.
        alpha: likewise.
        rank_pattern: ranks of modules whose names match a regular expression.
        alpha_pattern: likewise.
        use_rslora: whether the scaling is alpha / sqrt(rank), not alpha / rank.
        modules_to_save: ends of names of modules of which the adapter has its own copy.
        token_indices: tokens of which the adapter has its own rows, by the ends of names of modules.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[re.Pattern[str], int]
    alpha_pattern: Mapping[re.Pattern[str], float]
    use_rslora: bool
    modules_to_save: tuple[str, ...]
    token_indices: Mapping[str, tuple[int, ...]]

    def rank_of(self, module: str) -> int:
        """The rank of a module's factors."""
        return _matching(self.rank_pattern, module, self.rank)

    def scaling_of(self, module: str) -> float:
        """What the product of a module's factors is multiplied by."""
        rank = self.rank_of(module)
        return _matching(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.use_rslora else rank)

    def has_copy(self, module: str) -> bool:
        """Whether the adapter has its own copy of a module, instead of changing the weights that others share."""
        return module.endswith(self.modules_to_save)

    def tokens_of(self, module: str) -> tuple[int, ...] | None:
        """The tokens of which the adapter has its own rows of a module."""
        return next((ids for name, ids in self.token_indices.items() if module.endswith(name)), None)


def parse_config(fields: Mapping[str, Any]) -> AdapterConfig:
    """The content of `adapter_config.json`.

    Raises:
        AdapterError: it is not a LoRA adapter's, or has options whose effect would be lost.
    """
    _require_supported(fields)
    config = AdapterConfig(
        rank=_rank("r", fields.get("r", 8)),
        alpha=_alpha("lora_alpha", fields.get("lora_alpha", 8)),
        rank_pattern=_patterns("rank_pattern", fields, _rank),
        alpha_pattern=_patterns("alpha_pattern", fields, _alpha),
        use_rslora=bool(fields.get("use_rslora")),
        modules_to_save=_names("modules_to_save", fields.get("modules_to_save") or []),
        token_indices=_token_indices(fields.get("trainable_token_indices")),
    )
    if config.modules_to_save and config.token_indices:
        expected = "none besides modules_to_save: which of them decides a row is not defined"
        raise _error("trainable_token_indices", fields["trainable_token_indices"], expected)
    return config


def _require_supported(fields: Mapping[str, Any]) -> None:
    if (found := fields.get("peft_type")) != "LORA":
        raise _error("peft_type", found, "'LORA'")
    if (found := fields.get("bias", "none")) != "none":
        raise _error("bias", found, "'none': changed biases are not supported")
    found = fields.get("init_lora_weights", True)
    if not any(found is known or found == known for known in _INITIALIZATIONS):
        known = ", ".join(map(repr, _INITIALIZATIONS))
        raise _error("init_lora_weights", found, f"one of {known}: with others, peft changes the base model's weights")
    for field, reason in _UNSUPPORTED.items():
        if fields.get(field):
            raise _error(field, fields[field], f"none: {reason}")
    for field in sorted(fields.keys() - _INERT - _READ - _UNSUPPORTED.keys()):
        if fields[field]:  # unknown options that are not used do no harm
            raise _error(field, fields[field], "none: an unknown option may change answers")


def _rank(field: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise _error(field, value, "a positive integer")
    return value


def _alpha(field: str, value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < _LARGEST_ALPHA:
        raise _error(field, value, "a number")
    return float(value)


def _patterns(field: str, fields: Mapping[str, Any], check: Callable[[str, Any], _T]) -> dict[re.Pattern[str], _T]:
    value = fields.get(field) or {}
    if not isinstance(value, dict):
        raise _error(field, value, "an object of values by pattern")
    if len(value) > _MOST_PATTERNS:
        raise _error(field, f"{len(value)} patterns", f"at most {_MOST_PATTERNS}")
    return {_regex(field, pattern): check(f"{field}[{pattern!r}]", each) for pattern, each in value.items()}


def _names(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _error(field, value, "a list of modules")
    for name in value:
        if name.rpartition(".")[2] not in _EMBEDDING_MODULES:
            raise _error(field, name, f"one of {', '.join(_EMBEDDING_MODULES)}")
    return tuple(value)


def _token_indices(value: Any) -> dict[str, tuple[int, ...]]:
    field = "trainable_token_indices"
    by_module = value or {}
    if isinstance(by_module, list):
        by_module = {"shared": by_module}  # the model's input embeddings, in both layouts
    if not isinstance(by_module, dict):
        raise _error(field, value, "a list of tokens, or lists by module")
    _names(field, list(by_module))
    for ids in by_module.values():
        if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
            raise _error(field, ids, "a list of token ids")
        if len(set(ids)) < len(ids):
            raise _error(field, ids, "each token once")
    return {module: tuple(ids) for module, ids in by_module.items()}


def _matching(patterns: Mapping[re.Pattern[str], _T], module: str, default: _T) -> _T:
    """The value of the first pattern that matches, as peft chooses it."""
    return next((value for pattern, value in patterns.items() if pattern.match(module)), default)


def _regex(field: str, pattern: str) -> re.Pattern[str]:
    """What peft makes of a pattern: it also matches the ends of names."""
    if len(pattern) > _LONGEST_PATTERN:
        raise _error(field, pattern, f"at most {_LONGEST_PATTERN} characters")
    is_simple = all(sum(map(pattern.count, each)) <= most for each, most in _MOST_OPERATORS.items())
    if not is_simple or _REPEATED_GROUP.search(pattern):
        raise _error(field, pattern, "a simple pattern: at most 2 quantifiers and 2 groups, none of them repeated")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise _error(field, pattern, f"a regular expression ({error})") from None


def _error(field: str, value: Any, expected: str) -> AdapterError:
    return AdapterError(f"{CONFIG_FILE}: {field}: got {shortened(value)}, expected {expected}")


def shortened(value: Any) -> str:
    """A value of a file, for one line."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
