"""From the logits of a decode step to each search's candidates: one pass on the device, one transfer to the host."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from florence2_server.engine.generation import Generation
from florence2_server.engine.masses import LOCATIONS, WINDOW, LocationTokens, token_masses
from florence2_server.engine.model.transfer import to_device
from florence2_server.engine.rules import IntArray
from florence2_server.engine.search import Candidates, Float32Array, probabilities_of

# The first columns of the transfer are not about candidates: they are the normalizers of log-probabilities and of
# scores, and the logits of bos and eos.
_FIRST = 4


class _Indices(NamedTuple):
    """Columns of logits, on their device."""

    forced: Tensor
    """Those of bos and eos."""
    window: Tensor
    """The window around a token, as what to add to its id to get columns of location tokens."""

    def on(self, device: torch.device) -> "_Indices":
        return _Indices(*(indices.to(device) for indices in self))


class CandidateFinder:
    """Applies logits processing and finds the best next tokens of all rows.

    Args:
        bos_token_id, eos_token_id: the tokens that a search can be forced to take.
        locations: the location tokens; None if the checkpoint has none: then all masses are probabilities.
    """

    def __init__(self, bos_token_id: int, eos_token_id: int, locations: LocationTokens | None = None) -> None:
        self._eos_token_id = eos_token_id
        self._locations = locations
        window = WINDOW - (0 if locations is None else locations.first)
        self._indices = _Indices(torch.tensor([bos_token_id, eos_token_id]), torch.from_numpy(window))

    @torch.inference_mode()
    def find(self, logits: Tensor, generations: Sequence[Generation]) -> list[Candidates]:
        """Find the candidates of each generation's beams.

        Args:
            logits: (rows, vocabulary) float32; changed in place.
            generations: all generations in the decode batch; together they have the rows.
        """
        if self._indices.forced.device != logits.device:
            self._indices = self._indices.on(logits.device)
        # Before logits processing: log-probabilities and masses are the model's own.
        own_normalizer = log_normalizer = logits.logsumexp(dim=-1, keepdim=True)
        forced = logits.index_select(1, self._indices.forced)
        changing = [generation for generation in generations if generation.search.changes_scores]
        forbidden = _forbidden(generations, logits.shape[1])
        located = self._located(logits, is_changed=bool(changing or forbidden))
        log_probabilities = logits - log_normalizer if changing else None
        if log_probabilities is not None:
            log_normalizer = log_normalizer.clone()
            _use_log_probabilities(logits, log_normalizer, log_probabilities, changing)
            _penalize_repetition(logits, changing)
            self._favor_the_end(logits, changing)
        for pairs in forbidden:
            rows, tokens = to_device(pairs, logits.device)
            logits[rows, tokens] = -torch.inf
        count = min(max(generation.search.candidates_needed for generation in generations), logits.shape[1])
        best, token_ids = _top(logits, count)
        # float32 holds token ids up to 2**24 exactly.
        table = [own_normalizer, log_normalizer, forced, token_ids.to(torch.float32), best]
        if log_probabilities is not None:
            table.append(log_probabilities.gather(1, token_ids))
        if located is not None:
            columns = (token_ids.unsqueeze(2) + self._indices.window).clamp_(0, LOCATIONS - 1)
            table.append(located.gather(1, columns.flatten(1)))
        host = torch.cat(table, dim=1).cpu().numpy()  # the step's only wait for the device
        return _split(_candidates_of(host, count, bool(changing), self._locations), generations)

    def _located(self, logits: Tensor, *, is_changed: bool) -> Tensor | None:
        """(rows, LOCATIONS): the logits of location tokens, kept if logits processing will change them."""
        if self._locations is None:
            return None
        located = logits.narrow(1, self._locations.first, LOCATIONS)
        return located.clone() if is_changed else located

    def _favor_the_end(self, logits: Tensor, generations: Sequence[Generation]) -> None:
        """`ExponentialDecayLengthPenalty` of `generate()`."""
        gains = {
            row: gain for generation in generations if (gain := generation.search.end_gain) for row in generation.rows
        }
        if gains:
            rows = to_device(list(gains), logits.device)
            scores = logits[rows, self._eos_token_id]
            factors = to_device(np.array(list(gains.values())), logits.device).to(torch.float32)
            gained = (scores.abs() * factors).masked_fill(~scores.isfinite(), 0)
            logits[rows, self._eos_token_id] = scores + gained


def _candidates_of(
    host: Float32Array, count: int, has_log_probabilities: bool, locations: LocationTokens | None
) -> Candidates:
    """The candidates of all rows.

    Args:
        host: the table from the device.
        count: how many candidates of each row it has.
        has_log_probabilities: whether it has their log-probabilities, because logits processing changed the scores.
        locations: the location tokens, if it has the logits of what is around the candidates.
    """
    # To subtract here rather than on the device gives the same numbers, and takes less time.
    normalizer, end = host[:, :1], _FIRST + 2 * count
    token_ids = host[:, _FIRST : _FIRST + count].astype("int64")
    log_probabilities = scores = host[:, _FIRST + count : end] - host[:, 1:2]
    if has_log_probabilities:
        log_probabilities = host[:, end : end + count]
        end += count
    if locations is None:
        masses = probabilities_of(log_probabilities)
    else:
        windows = (host[:, end:] - normalizer).reshape(len(host), count, WINDOW.size)
        masses = token_masses(token_ids, log_probabilities, windows, locations)
    forced = host[:, 2:_FIRST] - normalizer
    return Candidates(token_ids, scores, log_probabilities, masses, forced[:, 0], forced[:, 1])


def _split(candidates: Candidates, generations: Sequence[Generation]) -> list[Candidates]:
    """Split the candidates by generation."""
    return [
        Candidates(
            candidates.token_ids[generation.rows, : generation.search.candidates_needed],
            candidates.scores[generation.rows, : generation.search.candidates_needed],
            candidates.log_probabilities[generation.rows, : generation.search.candidates_needed],
            candidates.masses[generation.rows, : generation.search.candidates_needed],
            candidates.bos_log_probabilities[generation.rows],
            candidates.eos_log_probabilities[generation.rows],
        )
        for generation in generations
    ]


def _top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:
        best = logits.max(dim=-1, keepdim=True)
        return best.values, best.indices
    top = logits.topk(count, dim=-1)
    return top.values, top.indices


def _use_log_probabilities(
    logits: Tensor, log_normalizer: Tensor, log_probabilities: Tensor, generations: Sequence[Generation]
) -> None:
    """Replace beam searches' logits by log-probabilities, as `generate()` does; greedy search keeps its logits."""
    rows = [row for generation in generations if generation.search.beams > 1 for row in generation.rows]
    if rows:
        indices = to_device(rows, logits.device)
        logits[indices] = log_probabilities[indices]
        log_normalizer[indices] = 0


def _penalize_repetition(logits: Tensor, generations: Sequence[Generation]) -> None:
    """`RepetitionPenaltyLogitsProcessor` of `generate()`."""
    penalized = [generation for generation in generations if generation.search.repetition_penalty != 1]
    if not penalized:
        return
    histories = [generation.search.history for generation in penalized]
    rows = [
        np.repeat(generation.rows, history.shape[1]) for generation, history in zip(penalized, histories, strict=True)
    ]
    tokens = [history.ravel() for history in histories]
    indices = tuple(to_device(np.stack([np.concatenate(rows), np.concatenate(tokens)]), logits.device))
    factors = np.array([generation.search.repetition_penalty for generation in penalized], np.float32)
    penalty = to_device(np.repeat(factors, [history.size for history in histories]), logits.device)
    scores = logits[indices]
    logits[indices] = torch.where(scores < 0, scores * penalty, scores / penalty)


def _forbidden(generations: Sequence[Generation], vocabulary: int) -> list[IntArray]:
    """The forbidden tokens: arrays of rows and tokens, of shape (2, N)."""
    forbidden = [
        (generation.rows[beam], token)
        for generation in generations
        for beam, token in generation.search.forbidden_tokens()
        if token < vocabulary
    ]
    found = [np.array(forbidden).T] if forbidden else []
    always = [
        (row, generation.search.always_forbidden)
        for generation in generations
        if generation.search.always_forbidden.size
        for row in generation.rows
    ]
    if always:
        pairs = np.concatenate([np.stack([np.full_like(tokens, row), tokens]) for row, tokens in always], axis=1)
        found.append(pairs[:, pairs[1] < vocabulary])
    return found
