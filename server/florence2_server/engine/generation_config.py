"""From a checkpoint's generation config to the engine's defaults.

`FIELDS` states the effect of every field of `GenerationConfig`: no setting that would change an answer is silently
ignored.
"""

import logging
from dataclasses import replace
from enum import Enum
from math import inf
from typing import Any

from florence2.options import GENERATION_OPTIONS, Limit, Option
from transformers import GenerationConfig

from florence2_server.config import EngineConfig
from florence2_server.engine.errors import CheckpointError
from florence2_server.engine.limits import completion_limit
from florence2_server.engine.options import GenerationDefaults
from florence2_server.engine.rules import CheckpointRules, ExponentialDecay
from florence2_server.engine.search_options import EarlyStopping

_logger = logging.getLogger(__name__)

# The library's default, which many saved configs contain although it was not chosen.
_UNCHOSEN_MAX_LENGTH = 20
_SHOWN_CHARACTERS = 80


class Effect(Enum):
    """The effect of a field of a generation config in the engine."""

    APPLIED = "applied as by `generate()`"
    HARMLESS = "changes no answer"
    SAMPLING = "changes no answer, because the engine searches instead of sampling"
    LOGGED = "the engine searches anyway, and logs a warning"
    REJECTED = "would change answers, but is not implemented: a checkpoint that sets it is rejected"


def _fields(effect: Effect, names: str) -> dict[str, Effect]:
    return dict.fromkeys(names.split(), effect)


FIELDS: dict[str, Effect] = {
    **_fields(Effect.APPLIED, "max_length max_new_tokens min_length min_new_tokens early_stopping num_beams"),
    **_fields(Effect.APPLIED, "repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size"),
    **_fields(Effect.APPLIED, "bad_words_ids suppress_tokens begin_suppress_tokens exponential_decay_length_penalty"),
    **_fields(Effect.APPLIED, "bos_token_id eos_token_id decoder_start_token_id"),
    **_fields(Effect.APPLIED, "forced_bos_token_id forced_eos_token_id"),
    **_fields(Effect.LOGGED, "do_sample"),
    **_fields(Effect.SAMPLING, "temperature top_k top_p min_p top_h typical_p epsilon_cutoff eta_cutoff"),
    # These only change how `generate()` computes or what else it returns; the answer is the first of several sequences.
    **_fields(Effect.HARMLESS, "use_cache cache_implementation cache_config max_cache_len prefill_chunk_size"),
    **_fields(
        Effect.HARMLESS, "low_memory compile_config disable_compile continuous_batching_config transformers_version"
    ),
    **_fields(Effect.HARMLESS, "num_return_sequences output_attentions output_hidden_states output_scores"),
    **_fields(Effect.HARMLESS, "output_logits return_dict_in_generate pad_token_id remove_invalid_values"),
    # Speculative decoding: the model accepts or rejects each draft token, so the answer stays the same.
    **_fields(Effect.HARMLESS, "num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold"),
    **_fields(Effect.HARMLESS, "prompt_lookup_num_tokens max_matching_ngram_size assistant_early_exit"),
    **_fields(Effect.HARMLESS, "assistant_lookbehind target_lookbehind assistant_ensemble_weight speculation_type"),
    **_fields(Effect.REJECTED, "encoder_repetition_penalty sequence_bias guidance_scale renormalize_logits"),
    **_fields(
        Effect.REJECTED, "watermarking_config stop_strings max_time token_healing is_assistant use_mtp constraints"
    ),
    **_fields(Effect.REJECTED, "num_beam_groups diversity_penalty penalty_alpha dola_layers force_words_ids"),
}
# Values besides None that a rejected field may have: the library's defaults, which have no effect.
_NEUTRAL: dict[str, float | bool] = {
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale", "num_beam_groups"), 1),
    **dict.fromkeys(("diversity_penalty", "penalty_alpha"), 0),
    **dict.fromkeys(("renormalize_logits", "token_healing", "is_assistant", "use_mtp"), False),
}


def generation_defaults(
    config: GenerationConfig, tokenizer: Any, positions: Limit, limits: EngineConfig
) -> GenerationDefaults:
    """The defaults of the generation options, and their limits.

    Args:
        config: the checkpoint's generation config; wrong token ids are repaired in place.
        tokenizer: the checkpoint's Hugging Face tokenizer.
        positions: the number of positions in use.
        limits: the server's settings.

    Raises:
        CheckpointError: the config has a setting that the engine does not implement, or that `generate()` rejects.
    """
    _repair_token_ids(config, tokenizer)
    _check_effects(config)
    longest_completion = completion_limit(limits.max_new_tokens, positions)
    defaults = GenerationDefaults(
        **_own_options(config, longest_completion.value),
        positions=positions,
        longest_completion=longest_completion,
        most_beams=limits.max_beams,
        rules=_rules(config, tokenizer),
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        forced_bos_token_id=config.forced_bos_token_id,
        forced_eos_token_id=config.forced_eos_token_id,
    )
    if (beams := defaults.num_beams) > limits.max_beams:
        raise CheckpointError(f"max_beams: got {limits.max_beams}, expected at least the checkpoint's own {beams}")
    return defaults


def _own_options(config: GenerationConfig, longest_completion: int) -> dict[str, Any]:
    """The generation options that the config sets, and the declared defaults of the others."""
    special = {
        "max_new_tokens": min(_max_new_tokens(config) or longest_completion, longest_completion),
        "min_new_tokens": _min_new_tokens(config),
        "early_stopping": _early_stopping(config),
        "repetition_penalty": _repetition_penalty(config),
    }
    others = {name: option for name, option in GENERATION_OPTIONS.items() if name not in special}
    return special | {name: _own_option(config, option) for name, option in others.items()}


def _own_option(config: GenerationConfig, option: Option) -> Any:
    # An option that is not a field of the config can be set by requests only.
    if option.name not in FIELDS or getattr(config, option.name) is None:
        return option.default
    if option.type is float:
        return _number(config, option)
    return _whole(config, option.name, 0, least=option.least or None)


def _repair_token_ids(config: GenerationConfig, tokenizer: Any) -> None:
    """Replace token ids that differ from the tokenizer's. Some fine-tunes have such ids, and would never stop."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    right = {"bos_token_id": bos, "eos_token_id": eos, "decoder_start_token_id": eos}
    if config.forced_bos_token_id is not None:
        right["forced_bos_token_id"] = bos
    if config.forced_eos_token_id is not None:
        right["forced_eos_token_id"] = eos
    for name, token_id in right.items():
        value = getattr(config, name)
        if isinstance(value, list) and len(set(value)) > 1:
            raise _error(name, value, "one token")
        if value not in (token_id, [token_id]):
            _logger.warning("generation config: %s is %s, repaired to %s", name, value, token_id)
        setattr(config, name, token_id)


def _check_effects(config: GenerationConfig) -> None:
    """Reject settings that would change answers, and warn that there is no sampling."""
    for name, effect in FIELDS.items():
        value = getattr(config, name, None)
        is_set = value is not None and value not in ([], {}) and value != _NEUTRAL.get(name)
        if effect is Effect.REJECTED and is_set:
            raise _error(name, value, "null: the engine does not implement it")
    if config.do_sample:
        sampling = [name for name, effect in FIELDS.items() if effect is Effect.SAMPLING]
        _logger.warning(
            "generation config: do_sample is true, but the engine searches instead of sampling and ignores %s",
            ", ".join(sampling),
        )


def _max_new_tokens(config: GenerationConfig) -> int | None:
    """`max_length` also counts the decoder start token; `max_new_tokens` takes precedence over it."""
    if config.max_new_tokens is not None:
        return _whole(config, "max_new_tokens", 0, least=1)
    if config.max_length in (None, _UNCHOSEN_MAX_LENGTH):
        return None
    return _whole(config, "max_length", 0, least=2) - 1


def _min_new_tokens(config: GenerationConfig) -> int:
    """`min_new_tokens` takes precedence over `min_length`, as for the maximum."""
    if config.min_new_tokens is not None:
        return _whole(config, "min_new_tokens", 0)
    return max(_whole(config, "min_length", 0) - 1, 0)


def _early_stopping(config: GenerationConfig) -> EarlyStopping:
    """`generate()` compares with `True` by identity, so 1 selects the heuristic."""
    if config.early_stopping is True or config.early_stopping == "never":
        return EarlyStopping(config.early_stopping)
    return EarlyStopping.HEURISTIC


def _repetition_penalty(config: GenerationConfig) -> float:
    """The penalty, in the range of `generate()`, which is wider than that of requests."""
    penalty: float = _own_option(config, replace(GENERATION_OPTIONS["repetition_penalty"], least=0, most=inf))
    if penalty == 0:
        raise _error("repetition_penalty", penalty, "a number above 0")
    return penalty


def _rules(config: GenerationConfig, tokenizer: Any) -> CheckpointRules:
    bad_words = _bad_words(config)
    suppressed = _token_ids(config, "suppress_tokens")
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if getattr(config, name) in suppressed:
            raise _error("suppress_tokens", list(suppressed), f"a list without {getattr(config, name)}, the {name}")
    return CheckpointRules(
        encoder_no_repeat_ngram_size=_whole(config, "encoder_no_repeat_ngram_size", 0),
        image_token_id=getattr(tokenizer, "image_token_id", None),
        exponential_decay=_exponential_decay(config),
        bad_words=bad_words,
        suppressed_tokens=suppressed,
        begin_suppressed_tokens=_token_ids(config, "begin_suppress_tokens"),
    )


def _bad_words(config: GenerationConfig) -> tuple[tuple[int, ...], ...]:
    """The bad words without the end token alone, which `generate()` also leaves out."""
    words = config.bad_words_ids or []
    if not isinstance(words, list) or not all(_are_token_ids(word) and word for word in words):
        raise _error("bad_words_ids", words, "lists of token ids")
    return tuple(tuple(word) for word in words if word != [config.eos_token_id])


def _token_ids(config: GenerationConfig, name: str) -> tuple[int, ...]:
    """The token ids in a field, without those below 0, which have no meaning."""
    ids = getattr(config, name) or []
    if not isinstance(ids, list) or not all(_is_whole(token_id) for token_id in ids):
        raise _error(name, ids, "a list of token ids")
    return tuple(token_id for token_id in ids if token_id >= 0)


def _exponential_decay(config: GenerationConfig) -> ExponentialDecay | None:
    match config.exponential_decay_length_penalty:
        case None:
            return None
        case [start, factor] if _is_whole(start) and _is_number(factor):
            return ExponentialDecay(start, float(factor))
    raise _error(
        "exponential_decay_length_penalty",
        config.exponential_decay_length_penalty,
        "two numbers: the number of tokens after which it starts, and a factor",
    )


def _whole(config: GenerationConfig, name: str, default: int, least: float | None = None) -> int:
    """A number of tokens or beams. Without `least`, a value below 0 counts as 0, as in `generate()`."""
    value = getattr(config, name)
    if value is None:
        return default
    if not _is_whole(value) or (least is not None and value < least):
        raise _error(name, value, "a whole number" if least is None else f"a whole number, at least {least}")
    return max(int(value), 0)


def _number(config: GenerationConfig, option: Option) -> float:
    value = getattr(config, option.name)
    if not _is_number(value) or not option.least <= value <= option.most:
        raise _error(option.name, value, option.values)
    return float(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -inf < value < inf


def _are_token_ids(ids: object) -> bool:
    return isinstance(ids, list) and all(_is_whole(token_id) and token_id >= 0 for token_id in ids)


def _error(name: str, value: object, requirement: str) -> CheckpointError:
    shown = repr(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}…"
    return CheckpointError(f"generation config: {name}: got {shown}, expected {requirement}")
