"""Greedy and beam search as in Hugging Face `generate()`, for one generation each. Imports no torch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from florence2_server.engine.completion import Completion
from florence2_server.engine.rules import IntArray
from florence2_server.engine.search import BeamCopy, Candidates, ChosenToken, Float32Array, Search
from florence2_server.engine.search_options import EarlyStopping, SearchOptions

# The score by which `generate()` excludes beams as long as there are others.
_EXCLUDED = np.float32(-1e9)


class GreedySearch(Search):
    """The most probable token at each step."""

    def advance(self, candidates: Candidates) -> list[BeamCopy]:
        """See `Search.advance`; a single beam continues from itself."""
        preferred = int(candidates.token_ids[0, 0])
        if forced := self._forced(candidates):
            token = ChosenToken(forced.token_id, float(forced.log_probabilities[0]), float(forced.masses[0]))
        else:
            token = ChosenToken(preferred, float(candidates.log_probabilities[0, 0]), float(candidates.masses[0, 0]))
        if self._is_last_step or token.token_id == self._options.eos_token_id:
            self.completion = self._complete(0, token, preferred)
            return []
        self._token_ids[0, self.generated + 1] = token.token_id
        self._log_probabilities[0, self.generated] = token.log_probability
        self._masses[0, self.generated] = token.mass
        self.generated += 1
        return []

    def _count_certain(self) -> int:
        return self.generated


class _Continuations(NamedTuple):
    """Continuations of beams by a token, all of shape (continuations,)."""

    beams: IntArray
    token_ids: IntArray
    log_probabilities: Float32Array
    masses: Float32Array
    scores: Float32Array
    """Of the whole sequences."""

    def at(self, indices: IntArray) -> "_Continuations":
        """The continuations at these indices."""
        return _Continuations(
            self.beams[indices],
            self.token_ids[indices],
            self.log_probabilities[indices],
            self.masses[indices],
            self.scores[indices],
        )


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
        best = self._best(candidates)
        ends = (best.token_ids == self._options.eos_token_id) | self._is_last_step
        for rank in np.flatnonzero(ends[: self.beams]).tolist():
            beam = int(best.beams[rank])
            preferred = int(candidates.token_ids[beam, 0])
            token = ChosenToken(
                int(best.token_ids[rank]), float(best.log_probabilities[rank]), float(best.masses[rank])
            )
            self._finish(self._complete(beam, token, preferred), best.scores[rank])
        running = best._replace(scores=best.scores + ends * _EXCLUDED)
        running = running.at(np.argsort(-running.scores, kind="stable")[: self.beams])
        if self._is_last_step or not self._can_improve(running.scores[0]):
            self.completion = self._finished[0].completion
            return []
        return self._continue(running)

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

    def _best(self, candidates: Candidates) -> _Continuations:
        """The best continuations in descending order."""
        if forced := self._forced(candidates):
            token_ids = np.full(self.beams, forced.token_id)
            # A forced token does not change a beam's score.
            all_beams = _Continuations(
                np.arange(self.beams), token_ids, forced.log_probabilities, forced.masses, self._scores
            )
            return all_beams.at(np.argsort(-self._scores, kind="stable"))
        scores = (candidates.scores + self._scores[:, None]).ravel()
        order = np.argsort(-scores, kind="stable")[: 2 * self.beams]
        return _Continuations(
            order // candidates.token_ids.shape[1],
            candidates.token_ids.ravel()[order],
            candidates.log_probabilities.ravel()[order],
            candidates.masses.ravel()[order],
            scores[order],
        )

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

    def _continue(self, chosen: _Continuations) -> list[BeamCopy]:
        """Replace the beams by continuations."""
        order, copies = self._in_place(chosen.beams.tolist())
        chosen = chosen.at(order)
        parents, length = chosen.beams, self.generated + 1
        self._token_ids[:, :length] = self._token_ids[parents, :length]
        self._token_ids[:, length] = chosen.token_ids
        self._log_probabilities[:, : self.generated] = self._log_probabilities[parents, : self.generated]
        self._log_probabilities[:, self.generated] = chosen.log_probabilities
        self._masses[:, : self.generated] = self._masses[parents, : self.generated]
        self._masses[:, self.generated] = chosen.masses
        self._scores = chosen.scores
        self._shared = np.where(parents[:, None] == parents, length, self._shared[np.ix_(parents, parents)])
        self.generated = length
        return copies

    def _in_place(self, parents: list[int]) -> tuple[IntArray, list[BeamCopy]]:
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
        return np.array([rank for rank in order if rank is not None]), copies


def start_search(options: SearchOptions, prompt_ids: Sequence[int]) -> Search:
    """Start a search with these options; see `Search` for the arguments."""
    return (GreedySearch if options.num_beams == 1 else BeamSearch)(options, prompt_ids)
