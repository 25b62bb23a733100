"""Greedy and beam search as in Hugging Face `generate()`, for one generation each. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from florence2_server.engine.completion import Completion
from florence2_server.engine.rules import IntArray
from florence2_server.engine.search import BeamCopy, Candidates, Float32Array, Search
from florence2_server.engine.search_options import EarlyStopping, SearchOptions

# The score by which `generate()` excludes beams as long as there are others.
_EXCLUDED = np.float32(-1e9)


class GreedySearch(Search):
    """The most probable token at each step."""

    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """See `Search.advance`; a single beam continues from itself."""
        preferred = token_id = int(candidates.token_ids[0, 0])
        log_probability = float(candidates.log_probabilities[0, 0])
        if forced := self._forced(candidates):
            token_id, log_probability = forced[0], float(forced[1][0])
        if self._is_last_step or token_id == self._options.eos_token_id:
            self.completion = self._complete(0, token_id, log_probability, preferred)
            return []
        self._token_ids[0, self.generated + 1] = token_id
        self._log_probabilities[0, self.generated] = log_probability
        self.generated += 1
        return []

    def _count_certain(self) -> int:
        return self.generated


class _Finished(NamedTuple):
    score: np.float32
    completion: Completion


class BeamSearch(Search):
    """The `num_beams` best sequences at each step, until none of them can improve on the finished ones.

    `generate()` marks unfinished beams among the finished ones with a score of -1e9; here the list of finished ones has
    only these. This differs only if the length penalty pushes real scores below -1e9, for which `generate()` returns
    nothing at all.
    """

    def __init__(self, options: SearchOptions, prompt_ids: Sequence[int]) -> None:
        super().__init__(options, prompt_ids)
        # All beams start out the same, so that the first step may continue only the first one.
        self._scores = np.full(self.beams, _EXCLUDED)
        self._scores[0] = 0
        self._finished: list[_Finished] = []
        # The number of leading positions at which two beams' caches are equal: a copy can skip these.
        self._shared = np.zeros((self.beams, self.beams), np.int64)

    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """See `Search.advance`."""
        beams, token_ids, log_probabilities, scores = self._best(candidates)
        ends = (token_ids == self._options.eos_token_id) | self._is_last_step
        for rank in np.flatnonzero(ends[: self.beams]).tolist():
            beam = int(beams[rank])
            preferred = int(candidates.token_ids[beam, 0])
            completion = self._complete(beam, int(token_ids[rank]), float(log_probabilities[rank]), preferred)
            self._finish(completion, scores[rank])
        running = scores + ends * _EXCLUDED
        chosen = np.argsort(-running, kind="stable")[: self.beams]
        best_running = running[chosen[0]]
        if self._is_last_step or not self._can_improve(best_running):
            self.completion = self._finished[0].completion
            return []
        return self._continue(beams[chosen], token_ids[chosen], log_probabilities[chosen], running[chosen])

    def _count_certain(self) -> int:
        """The length of the common prefix of all that may become the completion.

        These are the running beams and the best finished hypothesis: a hypothesis never moves up. The last token of the
        latter is left out, see `take_certain`.
        """
        rivals = self.history
        if self._finished:
            finished = np.array(self._finished[0].completion.token_ids[:-1])
            length = min(rivals.shape[1], finished.size)
            rivals = np.vstack([rivals[:, :length], finished[:length]])
        new = rivals[:, self._taken + 1 :]
        is_common = (new == new[0]).all(axis=0)
        return self._taken + int(np.append(is_common, False).argmin())

    def _best(self, candidates: Candidates) -> tuple[IntArray, IntArray, Float32Array, Float32Array]:
        """The best continuations in descending order: beam, token, log-probability, score of the whole sequence."""
        if forced := self._forced(candidates):
            token_id, log_probabilities = forced
            order = np.argsort(-self._scores, kind="stable")
            # A forced token does not change a beam's score.
            return order, np.full(self.beams, token_id), log_probabilities[order], self._scores[order]
        scores = (candidates.scores + self._scores[:, None]).ravel()
        order = np.argsort(-scores, kind="stable")[: 2 * self.beams]
        beams = order // candidates.token_ids.shape[1]
        return beams, candidates.token_ids.ravel()[order], candidates.log_probabilities.ravel()[order], scores[order]

    def _finish(self, completion: Completion, score: np.float32) -> None:
        length = np.float32(float(self.generated + 1) ** self._options.length_penalty)
        self._finished.append(_Finished(score / length, completion))
        self._finished.sort(key=lambda finished: -finished.score)  # stable: the earlier of equals stays first
        del self._finished[self.beams :]

    def _can_improve(self, best_running: np.float32) -> bool:
        """Whether a running beam may still beat the finished ones, as `generate()` estimates it."""
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

    def _continue(
        self, parents: IntArray, token_ids: IntArray, log_probabilities: Float32Array, scores: Float32Array
    ) -> list[BeamCopy]:
        """Replace the beams by continuations: a parent beam and a token each."""
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
        """An order of the continuations that leaves as many as possible on their parents' beams, and the other copies.

        The order of beams has no meaning, and a continuation that stays on its parent's beam needs no copy of keys and
        values.
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
    """Start a search with these options; see `Search` for the arguments."""
    return (GreedySearch if options.num_beams == 1 else BeamSearch)(options, prompt_ids)
