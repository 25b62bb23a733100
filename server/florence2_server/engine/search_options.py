"""The options of a search."""

from dataclasses import dataclass
from enum import Enum

from florence2_server.engine.rules import CheckpointRules


class EarlyStopping(Enum):
    """When beam search stops; the values are those of `early_stopping` in Hugging Face `generate()`."""

    HEURISTIC = False
    FIRST = True
    NEVER = "never"


@dataclass(frozen=True)
class SearchOptions:
    """A request's generation options, with the checkpoint's defaults for those that are not set.

    They mean what they mean in Hugging Face `generate()`; `suppress_bos` adds `[bos]` to its `bad_words_ids`.
    """

    max_new_tokens: int
    min_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    no_repeat_ngram_size: int
    repetition_penalty: float
    suppress_bos: bool
    rules: CheckpointRules
    bos_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None

    @property
    def always_forbidden(self) -> frozenset[int]:
        """Tokens that no step may choose, unless forced to."""
        forbidden = self.rules.always_forbidden
        return forbidden | {self.bos_token_id} if self.suppress_bos else forbidden
