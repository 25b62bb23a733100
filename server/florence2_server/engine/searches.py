"""Greedy and beam search, by the rules of Hugging Face `generate()`. One request each; imports no torch.

A search is told the best next tokens of its beams and says what goes on: which beam follows which, or the whole answer.
Scores are float32, as in `generate()`: the same sums in another precision would order near ties differently.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from florence2_engine.request import EarlyStopping, FinishReason, Hypothesis, SearchOptions
from florence2_engine.rules import BeamToken, EncoderNgrams, IntArray, bad_words_completed, repeating_tokens

Float32Array = npt.NDArray[np.float32]

# What `generate()` gives to beams that must not be chosen while there are others.
_HOPELESS = np.float32(-1e9)


@dataclass(frozen=True)
class Candidates:
    """The best next tokens of each beam.

    Attributes:
        token_ids: (beams, candidates), each beam's best first, as the rules of the search leave them.
        scores: (beams, candidates), of those tokens: log-probabilities after all rules, -inf if forbidden.
        log_probabilities: (beams, candidates), of those tokens under the model: before rules that change scores, but
            -inf if forbidden.
        bos_log_probabilities, eos_log_probabilities: (beams,), of the tokens that a search can be forced to take,
            under the model.
    """

    token_ids: IntArray
    scores: Float32Array
    log_probabilities: Float32Array
    bos_log_probabilities: Float32Array
    eos_log_probabilities: Float32Array


class BeamCopy(NamedTuple):
    """Beam `target` goes on from beam `source`; they have had the same tokens before position `first`."""

    source: int
    target: int
    first: int


class Search(ABC):
    """A search under way.

    Args:
        options: how to search.
        prompt_ids: the prompt's tokens, start and end token included.

    Attributes:
        never: the tokens that no step may choose unless forced to; some may be outside the model's vocabulary.
        generated: how many tokens each beam has generated.
        outcome: the answer, once there is one.
    """

    def __init__(self, options: SearchOptions, prompt_ids: Sequence[int]) -> None:
        self._options = options
        self._encoder_ngrams = (
            EncoderNgrams(options.rules.encoder_no_repeat_ngram_size, options.rules.image_token_id, prompt_ids)
            if options.rules.encoder_no_repeat_ngram_size
            else None
        )
        self.never = np.fromiter(options.never, np.int64)
        self.generated = 0
        self.outcome: Hypothesis | None = None
        self._token_ids = np.empty((options.num_beams, options.max_new_tokens + 1), np.int64)
        self._token_ids[:, 0] = options.decoder_start_token_id
        self._log_probabilities = np.empty((options.num_beams, options.max_new_tokens), np.float32)

    @property
    def beams(self) -> int:
        """How many beams there are."""
        return self._options.num_beams

    @property
    def candidates_needed(self) -> int:
        """How many of a beam's best tokens `advance` has to be told."""
        # Each beam may end once: with twice as many there are enough to go on with.
        return 1 if self.beams == 1 else 2 * self.beams

    def last_token_ids(self) -> list[int]:
        """The token that each beam has generated last, at position `generated`."""
        last: list[int] = self._token_ids[:, self.generated].tolist()
        return last

    @property
    def history(self) -> IntArray:
        """(beams, generated + 1): the tokens of each beam, the decoder start token first."""
        return self._token_ids[:, : self.generated + 1]

    @property
    def repetition_penalty(self) -> float:
        """The divisor of the scores of tokens in `history`, or their factor if they are below 0; 1 changes nothing."""
        return self._options.repetition_penalty

    @property
    def end_gain(self) -> float:
        """The relative increase of the end token's score at the next step."""
        return self._options.rules.end_gain(self.generated)

    @property
    def changes_scores(self) -> bool:
        """Whether a rule changes the scores of allowed tokens at the next step."""
        return self.repetition_penalty != 1 or self.end_gain != 0

    def forbidden_tokens(self) -> list[BeamToken]:
        """(beam, token) pairs that the next step must not choose, besides `never`; some may be out of vocabulary."""
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

    @abstractmethod
    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """Take the next token of each beam, or find the `outcome`.

        Returns:
            which beams go on from another; the others go on from themselves. Sources are never targets.
        """

    @property
    def _first_free_step(self) -> int:
        return 0 if self._options.forced_bos_token_id is None else 1

    @property
    def _is_last_step(self) -> bool:
        return self.generated + 1 == self._options.max_new_tokens

    def _forced(self, candidates: Candidates) -> tuple[int, Float32Array] | None:
        """The token that the next step has to take, if there is one, and its log-probability for each beam."""
        # If a step is both first and last, the later of `generate()`'s rules wins: the end token. If it is forced but
        # `begin_suppress_tokens` suppresses it, `generate()` has nothing left to choose from; here it is chosen.
        if self._is_last_step and self._options.forced_eos_token_id is not None:
            return self._options.forced_eos_token_id, candidates.eos_log_probabilities
        if self.generated == 0 and self._options.forced_bos_token_id is not None:
            return self._options.forced_bos_token_id, candidates.bos_log_probabilities
        return None

    def _hypothesis(self, beam: int, token_id: int, log_probability: float, wanted: int) -> Hypothesis:
        """The answer that a beam makes with a last token; `wanted` is the one the model would have taken."""
        eos = self._options.eos_token_id
        # An end that the length forced is no end of the model's own: it counts only where the model wanted it too.
        stopped = token_id == eos and (not self._is_last_step or wanted == eos)
        return Hypothesis(
            (*self._token_ids[beam, : self.generated + 1].tolist(), token_id),
            (*self._log_probabilities[beam, : self.generated].tolist(), log_probability),
            FinishReason.STOP if stopped else FinishReason.LENGTH,
        )


class GreedySearch(Search):
    """The most probable token at each step."""

    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """See `Search.advance`; a single beam goes on from itself."""
        wanted = token_id = int(candidates.token_ids[0, 0])
        log_probability = float(candidates.log_probabilities[0, 0])
        if forced := self._forced(candidates):
            token_id, log_probability = forced[0], float(forced[1][0])
        if self._is_last_step or token_id == self._options.eos_token_id:
            self.outcome = self._hypothesis(0, token_id, log_probability, wanted)
            return []
        self._token_ids[0, self.generated + 1] = token_id
        self._log_probabilities[0, self.generated] = log_probability
        self.generated += 1
        return []


class _Finished(NamedTuple):
    score: np.float32
    hypothesis: Hypothesis


class BeamSearch(Search):
    """The `num_beams` best beginnings at each step, until no better answer is to be had.

    `generate()` marks what must not be chosen with -1e9 among the scores; here what is not finished is not in the list
    of what is. The difference shows only where the length penalty makes real scores worse than -1e9: `generate()` then
    returns no answer at all.
    """

    def __init__(self, options: SearchOptions, prompt_ids: Sequence[int]) -> None:
        super().__init__(options, prompt_ids)
        # All beams begin alike, and only the first may be continued at the first step.
        self._scores = np.full(self.beams, _HOPELESS)
        self._scores[0] = 0
        self._improvable = True
        self._finished: list[_Finished] = []
        # How many first positions of two beams' caches hold the same, so that a copy can leave them out.
        self._shared = np.zeros((self.beams, self.beams), np.int64)

    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """See `Search.advance`."""
        beams, token_ids, log_probabilities, scores = self._best(candidates)
        ends = (token_ids == self._options.eos_token_id) | self._is_last_step
        for rank in np.flatnonzero(ends[: self.beams]).tolist():
            beam = int(beams[rank])
            hypothesis = self._hypothesis(
                beam, int(token_ids[rank]), float(log_probabilities[rank]), int(candidates.token_ids[beam, 0])
            )
            self._finish(hypothesis, scores[rank])
        running = scores + ends * _HOPELESS
        chosen = np.argsort(-running, kind="stable")[: self.beams]
        best_running = running[chosen[0]]
        if self._is_last_step or not self._can_improve(best_running):
            self.outcome = self._finished[0].hypothesis
            return []
        return self._go_on(beams[chosen], token_ids[chosen], log_probabilities[chosen], running[chosen])

    def _best(self, candidates: Candidates) -> tuple[IntArray, IntArray, Float32Array, Float32Array]:
        """The continuations that are looked at, best first: beam, token, log-probability, score of the whole."""
        if forced := self._forced(candidates):
            token_id, log_probabilities = forced
            order = np.argsort(-self._scores, kind="stable")
            # A forced token costs the beam nothing.
            return order, np.full(self.beams, token_id), log_probabilities[order], self._scores[order]
        scores = (candidates.scores + self._scores[:, None]).ravel()
        order = np.argsort(-scores, kind="stable")[: 2 * self.beams]
        beams = order // candidates.token_ids.shape[1]
        return beams, candidates.token_ids.ravel()[order], candidates.log_probabilities.ravel()[order], scores[order]

    def _finish(self, hypothesis: Hypothesis, score: np.float32) -> None:
        length = np.float32(float(self.generated + 1) ** self._options.length_penalty)
        self._finished.append(_Finished(score / length, hypothesis))
        self._finished.sort(key=lambda finished: -finished.score)  # stable: of equals, the earlier one stays first
        del self._finished[self.beams :]

    def _can_improve(self, best_running: np.float32) -> bool:
        """Whether a beam that goes on may come to a better answer, by `generate()`'s estimates."""
        options = self._options
        if len(self._finished) < self.beams:
            return True
        if options.early_stopping is EarlyStopping.FIRST:
            return False
        length = self.generated + 1
        if options.early_stopping is EarlyStopping.NEVER and options.length_penalty > 0:
            length = options.max_new_tokens
        best_possible = best_running / np.float32(float(length) ** options.length_penalty)
        return bool(best_possible > self._finished[-1].score)

    def _go_on(
        self, parents: IntArray, token_ids: IntArray, log_probabilities: Float32Array, scores: Float32Array
    ) -> list[BeamCopy]:
        order, copies = self._in_place(parents.tolist())
        parents = parents[order]
        length = self.generated + 1
        self._token_ids[:, :length] = self._token_ids[parents, :length]
        self._token_ids[:, length] = token_ids[order]
        self._log_probabilities[:, : self.generated] = self._log_probabilities[parents, : self.generated]
        self._log_probabilities[:, self.generated] = log_probabilities[order]
        self._scores = scores[order]
        self._shared = np.where(parents[:, None] == parents, length, self._shared[np.ix_(parents, parents)])
        self.generated = length
        return copies

    def _in_place(self, parents: list[int]) -> tuple[list[int], list[BeamCopy]]:
        """An order of the continuations in which each that can stays on its parent's beam, and the copies for the rest.

        Beams have no order of their own, and a beam that stays costs no copy of its keys and values.
        """
        order: list[int | None] = [None] * self.beams
        movers = []
        for rank, parent in enumerate(parents):
            if order[parent] is None:
                order[parent] = rank
            else:
                movers.append(rank)
        free = [beam for beam in range(self.beams) if order[beam] is None]
        copies = []
        for beam, rank in zip(free, movers, strict=True):
            order[beam] = rank
            copies.append(BeamCopy(parents[rank], beam, int(self._shared[parents[rank], beam])))
        return [rank for rank in order if rank is not None], copies


def start_search(options: SearchOptions, prompt_ids: Sequence[int]) -> Search:
    """Start a search with these options. `prompt_ids` include the prompt's start and end token."""
    return (GreedySearch if options.num_beams == 1 else BeamSearch)(options, prompt_ids)
