"""A request's generation options, completed from the checkpoint's own and checked against its limits."""

from dataclasses import dataclass

from florence2.errors import InvalidArgumentError
from florence2.v1 import EarlyStopping as EarlyStoppingMessage
from florence2.v1 import GenerationOptions

from florence2_engine.request import EarlyStopping, SearchOptions

MAX_LENGTH_PENALTY = 10
_EARLY_STOPPING = {
    EarlyStoppingMessage.EARLY_STOPPING_HEURISTIC: EarlyStopping.HEURISTIC,
    EarlyStoppingMessage.EARLY_STOPPING_FIRST: EarlyStopping.FIRST,
    EarlyStoppingMessage.EARLY_STOPPING_NEVER: EarlyStopping.NEVER,
}


@dataclass(frozen=True)
class GenerationDefaults:
    """What a checkpoint's generation config says, and the limits that follow from its size.

    Attributes:
        max_positions: the decoder's positions.
        longest_answer: the most tokens that a request may ask for.
        most_beams: the most beams that a request may ask for.
    """

    max_positions: int
    longest_answer: int
    most_beams: int
    max_new_tokens: int
    min_new_tokens: int
    num_beams: int
    length_penalty: float
    early_stopping: EarlyStopping
    no_repeat_ngram_size: int
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
        max_new_tokens = options.max_new_tokens if options.HasField("max_new_tokens") else self.max_new_tokens
        min_new_tokens = options.min_new_tokens if options.HasField("min_new_tokens") else self.min_new_tokens
        ngram_size = (
            options.no_repeat_ngram_size if options.HasField("no_repeat_ngram_size") else self.no_repeat_ngram_size
        )
        num_beams = options.num_beams if options.HasField("num_beams") else self.num_beams
        length_penalty = options.length_penalty if options.HasField("length_penalty") else self.length_penalty
        _require("max_new_tokens", max_new_tokens, 1, self.longest_answer)
        if options.HasField("min_new_tokens"):
            _require("min_new_tokens", min_new_tokens, 0, max_new_tokens)
        _require("no_repeat_ngram_size", ngram_size, 0, self.max_positions)
        _require("num_beams", num_beams, 1, self.most_beams)
        _require("length_penalty", length_penalty, -MAX_LENGTH_PENALTY, MAX_LENGTH_PENALTY)
        return SearchOptions(
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=_EARLY_STOPPING.get(options.early_stopping, self.early_stopping),
            no_repeat_ngram_size=ngram_size,
            suppress_bos=options.suppress_bos,
            bos_token_id=self.bos_token_id,
            eos_token_id=self.eos_token_id,
            decoder_start_token_id=self.decoder_start_token_id,
            forced_bos_token_id=self.forced_bos_token_id,
            forced_eos_token_id=self.forced_eos_token_id,
        )


def _require(name: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _error(name, value, f"{least} to {most}")


def _error(name: str, value: float, requirement: str) -> InvalidArgumentError:
    return InvalidArgumentError.of_field(f"generation.{name}", value, requirement)
