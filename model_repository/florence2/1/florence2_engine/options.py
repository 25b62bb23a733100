"""A request's generation options, completed from the checkpoint's own and checked against its limits."""

from dataclasses import dataclass

from florence2.errors import InvalidArgumentError
from florence2.v1 import GenerationOptions

from florence2_engine.request import SearchOptions


@dataclass(frozen=True)
class GenerationDefaults:
    """What a checkpoint's generation config says, and the limits that follow from its size.

    Attributes:
        max_positions: the decoder's positions, and so the most tokens of an answer.
    """

    max_positions: int
    max_new_tokens: int
    min_new_tokens: int
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
        if options.HasField("num_beams") and options.num_beams != 1:
            raise _error("num_beams", options.num_beams, "1; beam search is not served yet")
        max_new_tokens = options.max_new_tokens if options.HasField("max_new_tokens") else self.max_new_tokens
        min_new_tokens = options.min_new_tokens if options.HasField("min_new_tokens") else self.min_new_tokens
        ngram_size = (
            options.no_repeat_ngram_size if options.HasField("no_repeat_ngram_size") else self.no_repeat_ngram_size
        )
        _require("max_new_tokens", max_new_tokens, 1, self.max_positions)
        if options.HasField("min_new_tokens"):
            _require("min_new_tokens", min_new_tokens, 0, max_new_tokens)
        _require("no_repeat_ngram_size", ngram_size, 0, self.max_positions)
        return SearchOptions(
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            no_repeat_ngram_size=ngram_size,
            suppress_bos=options.suppress_bos,
            bos_token_id=self.bos_token_id,
            eos_token_id=self.eos_token_id,
            decoder_start_token_id=self.decoder_start_token_id,
            forced_bos_token_id=self.forced_bos_token_id,
            forced_eos_token_id=self.forced_eos_token_id,
        )


def _require(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _error(name, value, f"{least} to {most}")


def _error(name: str, value: int, requirement: str) -> InvalidArgumentError:
    return InvalidArgumentError.of_field(f"generation.{name}", value, requirement)
