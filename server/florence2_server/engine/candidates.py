"""From the logits of a decode step to each search's candidates: one pass on the device, one transfer to the host."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from florence2_server.engine.generation import Generation
from florence2_server.engine.masses import LOCATIONS, WINDOW, LocationTokens, token_masses
from florence2_server.engine.model.transfer import to_device
from florence2_server.engine.search import Candidates, Float32Array, probabilities_of

# The first columns of the transfer are not candidates: they are the log-probabilities of bos and eos.
_FORCED = 2


class CandidateFinder:
    """Applies logits processing and finds the best next tokens of all rows.

    Args:
        bos_token_id, eos_token_id: the tokens that a search can be forced to take.
        locations: the location tokens; None if the checkpoint has none: then all masses are probabilities.
    """

    def __init__(self, bos_token_id: int, eos_token_id: int, locations: LocationTokens | None = None) -> None:
        self._forced = [bos_token_id, eos_token_id]
        self._eos_token_id = eos_token_id
        self._locations = locations
        self._window: Tensor | None = None  # relative columns of the window around a token, on the logits' device

    @torch.inference_mode()
    def find(self, logits: Tensor, generations: Sequence[Generation]) -> list[Candidates]:
        """Find the candidates of each generation's beams.

        Args:
            logits: (rows, vocabulary) float32; changed in place.
            generations: all generations in the decode batch; together they have the rows.
        """
        log_normalizer = logits.logsumexp(dim=-1, keepdim=True)  # before logits processing: scores are the model's own
        forced = torch.cat([logits[:, token : token + 1] for token in self._forced], dim=1) - log_normalizer
        located = None if self._locations is None else logits[:, self._locations.columns] - log_normalizer
        changing = [generation for generation in generations if generation.search.changes_scores]
        log_probabilities = logits - log_normalizer if changing else None
        if log_probabilities is not None:
            _use_log_probabilities(logits, log_normalizer, log_probabilities, changing)
            _penalize_repetition(logits, changing)
            self._favor_the_end(logits, changing)
        _forbid(logits, generations)
        count = min(max(generation.search.candidates_needed for generation in generations), logits.shape[1])
        best, token_ids = _top(logits, count)
        # float32 holds token ids up to 2**24 exactly.
        table = [forced, token_ids.to(torch.float32), best - log_normalizer]
        if located is not None:
            table.insert(1, self._windows(located, token_ids))
        if log_probabilities is not None:
            table.append(log_probabilities.gather(1, token_ids))
        host = torch.cat(table, dim=1).cpu().numpy()  # the step's only wait for the device
        return _split(host, count, generations, self._locations)

    def _windows(self, located: Tensor, token_ids: Tensor) -> Tensor:
        """(rows, tokens * WINDOW.size): of `located`, what is around each token; anything if it is no location."""
        if self._window is None:
            assert self._locations is not None, "there are log-probabilities of them"
            self._window = to_device(WINDOW - self._locations.first, located.device)
        columns = token_ids[:, :, None] + self._window
        return located.gather(1, columns.clamp_(0, LOCATIONS - 1).flatten(1))

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


def _split(
    host: Float32Array, count: int, generations: Sequence[Generation], locations: LocationTokens | None
) -> list[Candidates]:
    """Split the table from the device by generation."""
    start = _FORCED if locations is None else _FORCED + count * WINDOW.size
    ids = host[:, start : start + count].astype("int64")
    scores = host[:, start + count : start + 2 * count]
    log_probabilities = host[:, -count:]  # these columns are the scores, if logits processing changed none
    if locations is None:
        masses = probabilities_of(log_probabilities)
    else:
        windows = host[:, _FORCED:start].reshape(len(host), count, WINDOW.size)
        masses = token_masses(ids, log_probabilities, windows, locations)
    return [
        Candidates(
            ids[generation.rows, : generation.search.candidates_needed],
            scores[generation.rows, : generation.search.candidates_needed],
            log_probabilities[generation.rows, : generation.search.candidates_needed],
            masses[generation.rows, : generation.search.candidates_needed],
            host[generation.rows, 0],
            host[generation.rows, 1],
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


def _forbid(logits: Tensor, generations: Sequence[Generation]) -> None:
    """Set the scores of forbidden tokens to -inf."""
    vocabulary = logits.shape[1]
    forbidden = [
        (generation.rows[beam], token)
        for generation in generations
        for beam, token in generation.search.forbidden_tokens()
        if token < vocabulary
    ]
    if forbidden:
        rows, tokens = to_device(forbidden, logits.device).T
        logits[rows, tokens] = -torch.inf
    always = [
        (row, generation.search.always_forbidden)
        for generation in generations
        if generation.search.always_forbidden.size
        for row in generation.rows
    ]
    if always:
        pairs = np.concatenate([np.stack([np.full_like(tokens, row), tokens]) for row, tokens in always], axis=1)
        rows, tokens = to_device(pairs[:, pairs[1] < vocabulary], logits.device)
        logits[rows, tokens] = -torch.inf
