"""From the logits of a decode step to each search's candidates: one pass on the device, one transfer to the host."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from florence2_server.engine.generation import Generation
from florence2_server.engine.masses import LOCATIONS, WINDOW, WINDOWS, LocationTokens
from florence2_server.engine.model.transfer import to_device
from florence2_server.engine.search import Candidates, Float32Array

_FORCED = 2  # tokens that a search can be forced to take


class CandidateFinder:
    """Applies logits processing and finds the best next tokens of all rows.

    Args:
        bos_token_id, eos_token_id: the tokens that a search can be forced to take.
        locations: the location tokens; None if the checkpoint has none: then, and if the model's vocabulary lacks some,
            all masses are probabilities.
    """

    def __init__(self, bos_token_id: int, eos_token_id: int, locations: LocationTokens | None = None) -> None:
        self._eos_token_id = eos_token_id
        self._locations = locations
        self._forced = torch.tensor([bos_token_id, eos_token_id])
        self._windows = torch.from_numpy(WINDOWS)

    @torch.inference_mode()
    def find(self, logits: Tensor, generations: Sequence[Generation]) -> list[Candidates]:
        """Find the candidates of each generation's beams.

        Args:
            logits: (rows, vocabulary) float32; changed in place.
            generations: all generations in the decode batch; together they have the rows.
        """
        if self._forced.device != logits.device:
            self._forced, self._windows = self._forced.to(logits.device), self._windows.to(logits.device)
        normalizer = logits.logsumexp(dim=-1, keepdim=True)
        changing = [generation for generation in generations if generation.search.changes_scores]
        log_probabilities = logits - normalizer if changing else None
        # Log-probabilities, if they are the scores but for the normalizer: this is subtracted on the host, which gives
        # the same numbers. Before logits processing: they are the model's own.
        own = logits if log_probabilities is None else log_probabilities
        forced, located = own.index_select(1, self._forced), self._located(own)
        if log_probabilities is not None:
            _use_log_probabilities(logits, normalizer, log_probabilities, changing)
            _penalize_repetition(logits, changing)
            self._favor_the_end(logits, changing)
        _forbid(logits, generations)
        count = min(max(generation.search.candidates_needed for generation in generations), logits.shape[1])
        best, token_ids = _top(logits, count)
        ids = token_ids.to(torch.float32)  # up to 2**24 exactly
        if log_probabilities is None:
            table = [normalizer, ids, best, forced]
        else:
            nothing = torch.zeros_like(normalizer)
            table = [nothing, ids, log_probabilities.gather(1, token_ids), forced, best - normalizer]
        if located is not None:
            table.insert(4, self._around(located, token_ids))
        host = torch.cat(table, dim=1).cpu().numpy()  # the step's only wait for the device
        return _split(_on_the_host(host, count, bool(changing)), generations)

    def _located(self, own: Tensor) -> Tensor | None:
        """(rows, LOCATIONS + 1): a copy of the columns of location tokens, and one of tokens that do not exist."""
        if self._locations is None or self._locations.first + LOCATIONS > own.shape[1]:
            return None  # tokenizers may have tokens that are outside the model's vocabulary
        return torch.constant_pad_nd(own.narrow(1, self._locations.first, LOCATIONS), (0, 1), -torch.inf)

    def _around(self, located: Tensor, token_ids: Tensor) -> Tensor:
        """(rows, tokens * WINDOW): of `located`, the window around each token."""
        assert self._locations is not None, "there are columns of them"
        windows = (token_ids.flatten() - (self._locations.first - 1)).clamp_(0, LOCATIONS + 1)
        return located.gather(1, self._windows.index_select(0, windows).view(len(located), -1))

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


def _on_the_host(host: Float32Array, count: int, has_scores: bool) -> Candidates:
    """The candidates of all rows.

    Args:
        host: the table from the device.
        count: how many candidates of each row it has.
        has_scores: whether it ends with their scores, because logits processing changed them.
    """
    token_ids = host[:, 1 : 1 + count].astype("int64")
    end = host.shape[1] - (count if has_scores else 0)
    values = host[:, 1 + count : end] - host[:, :1]
    probabilities = np.exp(values)
    log_probabilities, masses = values[:, :count], probabilities[:, :count]
    windows = probabilities[:, count + _FORCED :]
    if windows.size:
        masses = np.maximum(masses, windows.reshape(len(host), count, WINDOW).sum(axis=2))
    return Candidates(
        token_ids,
        host[:, end:] if has_scores else log_probabilities,
        log_probabilities,
        np.minimum(masses, np.float32(1)),  # the sum may exceed 1 by rounding
        values[:, count],
        values[:, count + 1],
    )


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
