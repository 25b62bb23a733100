"""The engine's result for one generation."""

from dataclasses import dataclass
from enum import Enum


class FinishReason(Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Completion:
    """The tokens that a search chose.

    Attributes:
        token_ids: the decoder start token, then every generated token.
        log_probabilities: log-probability of each generated token under the model, before logits processing.
        masses: mass of each generated token, as in `florence2.v1.TaskResponse`; see `token_masses`.
        finish_reason: STOP if the model ended the text, LENGTH if `max_new_tokens` cut it off.
    """

    token_ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    masses: tuple[float, ...]
    finish_reason: FinishReason
