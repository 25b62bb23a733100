"""A request's generation options, completed from the checkpoint's own and checked against its limits."""

from dataclasses import dataclass
from typing import TypeVar

from florence2.errors import InvalidArgumentError
from florence2.v1 import EarlyStopping as EarlyStoppingMessage
from florence2.v1 import GenerationOptions

from florence2_engine.limits import Limit
from florence2_engine.request import EarlyStopping, SearchOptions
from florence2_engine.rules import CheckpointRules

MAX_LENGTH_PENALTY = 10
_MAX_NGRAM_SIZE = 1024
_REPETITION_PENALTIES = (0.1, 10)
_Number = TypeVar("_Number", int, float)
_EARLY_STOPPING = {
    EarlyStoppingMessage.EARLY_STOPPING_HEURISTIC: EarlyStopping.HEURISTIC,
    EarlyStoppingMessage.EARLY_STOPPING_FIRST: EarlyStopping.FIRST,
    EarlyStoppingMessage.EARLY_STOPPING_NEVER: EarlyStopping.NEVER,
}


@dataclass(frozen=True)
class GenerationDefaults:
    """What a checkpoint's generation config says, and the limits that follow from its size.

    Attributes:
        positions: how many positions of the encoder and of the decoder the key-value cache holds.
        longest_answer: the most tokens that a request may ask for.
        most_beams: the most beams that a request may ask for.
        rules: the rules that no request can change.
    """

    positions: Limit
    longest_answer: Limit
    most_beams: int
    max_new_tokens: int
    min_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    no_repeat_ngram_size: int
    repetition_penalty: float
    rules: CheckpointRules
    bos_token_id: int
    eos_token_id: int
    decoder_start_token_id: int
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None

    def complete(self, options: GenerationOptions) -> SearchOptions:
        """The options in force for a request.

        Raises:
            InvalidArgumentError: an option out of range. The message names it, its value and the limit.
        """
        longest = self.longest_answer
        max_new_tokens = _chosen(options, "max_new_tokens", self.max_new_tokens, 1, longest.value, str(longest))
        return SearchOptions(
            max_new_tokens=max_new_tokens,
            min_new_tokens=_chosen(options, "min_new_tokens", self.min_new_tokens, 0, max_new_tokens),
            num_beams=_chosen(options, "num_beams", self.num_beams, 1, self.most_beams),
            length_penalty=_chosen(
                options, "length_penalty", self.length_penalty, -MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY
            ),
            early_stopping=_EARLY_STOPPING.get(options.early_stopping, self.early_stopping),
            no_repeat_ngram_size=_chosen(
                options, "no_repeat_ngram_size", self.no_repeat_ngram_size, 0, _MAX_NGRAM_SIZE
            ),
            repetition_penalty=_chosen(options, "repetition_penalty", self.repetition_penalty, *_REPETITION_PENALTIES),
            suppress_bos=options.suppress_bos,
            rules=self.rules,
            bos_token_id=self.bos_token_id,
            eos_token_id=self.eos_token_id,
            decoder_start_token_id=self.decoder_start_token_id,
            forced_bos_token_id=self.forced_bos_token_id,
            forced_eos_token_id=self.forced_eos_token_id,
        )


def _chosen(
    options: GenerationOptions, name: str, default: _Number, least: float, most: float, limit: str = ""
) -> _Number:
    """The request's option if it is set, else the checkpoint's default, which was checked at load time.

    Raises:
        InvalidArgumentError: the request's value is not in `least` to `most`, which the message shows as `limit`.
    """
    if not options.HasField(name):
        return default
    value: _Number = getattr(options, name)
    if not least <= value <= most:  # NaN is in no range
        raise InvalidArgumentError.of_field(f"generation.{name}", value, f"{least} to {limit or most}")
    return value
