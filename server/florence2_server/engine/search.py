"""What greedy and beam search have in common, as in Hugging Face `generate()`. Imports no torch.

At each step a search takes the best next tokens of its beams and returns which beams continue from which, until it has
its completion. Scores are float32, as in `generate()`: the same sums in another precision would order near ties
differently.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from florence2_server.engine.completion import Completion, FinishReason
from florence2_server.engine.rules import BeamToken, EncoderNgrams, IntArray, bad_words_completed, repeating_tokens
from florence2_server.engine.search_options import SearchOptions

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """The best next tokens of each beam.

    Attributes:
        token_ids: (beams, candidates), each beam's tokens in descending order of score.
        scores: (beams, candidates), their log-probabilities after logits processing; -inf if forbidden.
        log_probabilities: (beams, candidates), their log-probabilities under the model; -inf if forbidden.
        masses: (beams, candidates), their masses under the model, 0 to 1; see `token_masses`.
        bos_log_probabilities, eos_log_probabilities: (beams,), the log-probabilities under the model of the tokens that
            a search can be forced to take.
    """

    token_ids: IntArray
    scores: Float32Array
    log_probabilities: Float32Array
    masses: Float32Array
    bos_log_probabilities: Float32Array
    eos_log_probabilities: Float32Array


class ChosenToken(NamedTuple):
    """A beam's next token, with its log-probability and mass."""

    token_id: int
    log_probability: float
    mass: float


class ForcedToken(NamedTuple):
    """A token that a step is forced to take.

    Attributes:
        token_id: bos or eos.
        log_probabilities: (beams,), its log-probabilities under the model.
        masses: (beams,), its masses, which are its probabilities, because it is not a location token.
    """

    token_id: int
    log_probabilities: Float32Array
    masses: Float32Array


class BeamCopy(NamedTuple):
    """Beam `target` continues from beam `source`; before position `first` they have the same tokens already."""

    source: int
    target: int
    first: int


class CertainTokens(NamedTuple):
    """Consecutive tokens that are certain to be in the completion, with their log-probabilities and masses."""

    token_ids: list[int]
    log_probabilities: list[float]
    masses: list[float]


def probabilities_of(log_probabilities: Float32Array) -> Float32Array:
    """The probabilities, at most 1 in spite of rounding."""
    probabilities: Float32Array = np.minimum(np.exp(log_probabilities), np.float32(1))
    return probabilities


class Search(ABC):
    """A search in progress.

    Args:
        options: the options of the search.
        prompt_ids: token ids of the prompt, including the start and end token.

    Attributes:
        always_forbidden: tokens that no step may choose, unless forced to; some may be outside the model's vocabulary.
        generated: the number of tokens that each beam has generated.
        completion: the result; None until the search ends.
    """

    def __init__(self, options: SearchOptions, prompt_ids: Sequence[int]) -> None:
        self._options = options
        self._encoder_ngrams = (
            EncoderNgrams(options.rules.encoder_no_repeat_ngram_size, options.rules.image_token_id, prompt_ids)
            if options.rules.encoder_no_repeat_ngram_size
            else None
        )
        self.always_forbidden = np.fromiter(options.always_forbidden, np.int64)
        self.generated = 0
        self.completion: Completion | None = None
        self._token_ids = np.empty((options.num_beams, options.max_new_tokens + 1), np.int64)
        self._token_ids[:, 0] = options.decoder_start_token_id
        self._log_probabilities = np.empty((options.num_beams, options.max_new_tokens), np.float32)
        self._masses = np.empty_like(self._log_probabilities)
        self._taken = 0  # certain tokens that have been taken

    @property
    def beams(self) -> int:
        """The number of beams."""
        return self._options.num_beams

    @property
    def candidates_needed(self) -> int:
        """The number of each beam's best tokens that `advance` needs."""
        # Each beam can end once; twice as many candidates leave enough to continue with.
        return 1 if self.beams == 1 else 2 * self.beams

    def last_token_ids(self) -> list[int]:
        """The last token of each beam, at position `generated`."""
        last: list[int] = self._token_ids[:, self.generated].tolist()
        return last

    @property
    def history(self) -> IntArray:
        """(beams, generated + 1): the tokens of each beam, beginning with the decoder start token."""
        return self._token_ids[:, : self.generated + 1]

    @property
    def repetition_penalty(self) -> float:
        """Divisor of the positive scores of tokens in `history`, and factor of the negative ones; 1 changes nothing."""
        return self._options.repetition_penalty

    @property
    def end_gain(self) -> float:
        """The relative increase of the end token's score at the next step."""
        return self._options.rules.end_gain(self.generated)

    @property
    def changes_scores(self) -> bool:
        """Whether logits processing changes the scores of allowed tokens at the next step."""
        return self.repetition_penalty != 1 or self.end_gain != 0

    def forbidden_tokens(self) -> list[BeamToken]:
        """(beam, token) pairs that the next step must not choose, besides `always_forbidden`; some may be unknown."""
        options, rules, history = self._options, self._options.rules, self.history
        forbidden = repeating_tokens(history, options.no_repeat_ngram_size)
        if self.generated < options.min_new_tokens:
            forbidden += [(beam, options.eos_token_id) for beam in range(self.beams)]
        if self._encoder_ngrams is not None:
            forbidden += self._encoder_ngrams.completed(history)
        if rules.bad_endings:
            forbidden += bad_words_completed(history, rules.bad_endings)
        if rules.begin_suppressed_tokens and self.generated == self._first_free_step:
            forbidden += itertools.product(range(self.beams), rules.begin_suppressed_tokens)
        return forbidden

    def take_certain(self) -> CertainTokens:
        """The generated tokens that have become certain to be in the completion since the last call; often none.

        The completion's last token is never among them: it is known with the completion.
        """
        new = slice(self._taken, self._count_certain())
        self._taken = new.stop
        # Every beam begins with these tokens, and has the same log-probabilities and masses for them, except for a
        # forced first token while all beams are alike: of these, only the first one continues.
        return CertainTokens(
            self._token_ids[0, 1:][new].tolist(),
            self._log_probabilities[0, new].tolist(),
            self._masses[0, new].tolist(),
        )

    @abstractmethod
    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """Extend each beam by a token, or end the search by setting `completion`.

        Returns:
            the beams that continue from another one; the rest continue from themselves. No source is also a target.
        """

    @abstractmethod
    def _count_certain(self) -> int:
        """The number of generated tokens that are certain to be in the completion, at least `_taken`."""

    @property
    def _first_free_step(self) -> int:
        return 0 if self._options.forced_bos_token_id is None else 1

    @property
    def _is_last_step(self) -> bool:
        return self.generated + 1 == self._options.max_new_tokens

    def _forced(self, candidates: Candidates) -> ForcedToken | None:
        """The token that the next step is forced to take; None if it is free."""
        # If a step is both first and last, the later of `generate()`'s processors wins: the end token. If a forced
        # token is also in `begin_suppress_tokens`, `generate()` has nothing left to choose from; here it is chosen.
        if self._is_last_step and self._options.forced_eos_token_id is not None:
            token_id, log_probabilities = self._options.forced_eos_token_id, candidates.eos_log_probabilities
        elif self.generated == 0 and self._options.forced_bos_token_id is not None:
            token_id, log_probabilities = self._options.forced_bos_token_id, candidates.bos_log_probabilities
        else:
            return None
        return ForcedToken(token_id, log_probabilities, probabilities_of(log_probabilities))

    def _complete(self, beam: int, token: ChosenToken, preferred: int) -> Completion:
        """The completion of a beam with a last token; `preferred` is the token that the model would have chosen."""
        eos = self._options.eos_token_id
        # An end token forced by the length counts as the model's own only if the model preferred it, too.
        stopped = token.token_id == eos and (not self._is_last_step or preferred == eos)
        return Completion(
            (*self._token_ids[beam, : self.generated + 1].tolist(), token.token_id),
            (*self._log_probabilities[beam, : self.generated].tolist(), token.log_probability),
            (*self._masses[beam, : self.generated].tolist(), token.mass),
            FinishReason.STOP if stopped else FinishReason.LENGTH,
        )
