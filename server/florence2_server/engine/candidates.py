"""From a decode step's logits to what each search has to know: one pass on the device, one transfer to the host."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from florence2_engine.request import Request
from florence2_engine.search import Candidates, Float32Array
from florence2_engine.transfer import to_device

# Columns of the transfer that are no candidate: the log-probabilities of the tokens that can be forced.
_FORCED = 2


class CandidateFinder:
    """Finds the best next tokens of all rows.

    Args:
        bos_token_id, eos_token_id: the tokens that a search can be forced to take.
    """

    def __init__(self, bos_token_id: int, eos_token_id: int) -> None:
        self._forced = [bos_token_id, eos_token_id]
        self._eos_token_id = eos_token_id

    @torch.inference_mode()
    def find(self, logits: Tensor, requests: Sequence[Request]) -> list[Candidates]:
        """The candidates of each request's beams.

        Args:
            logits: (rows, vocabulary) float32; changed in place.
            requests: all that run; their beams are on the first rows.
        """
        normaliser = logits.logsumexp(dim=-1, keepdim=True)  # before any rule: scores are the model's own
        forced = torch.cat([logits[:, token : token + 1] for token in self._forced], dim=1) - normaliser
        changing = [request for request in requests if request.search.changes_scores]
        own = logits - normaliser if changing else None
        if own is not None:
            _use_log_probabilities(logits, normaliser, own, changing)
            _penalize_repetition(logits, changing)
            self._favor_the_end(logits, changing)
        _forbid(logits, requests)
        count = min(max(request.search.candidates_needed for request in requests), logits.shape[1])
        best, token_ids = _top(logits, count)
        table = [forced, token_ids.to(torch.float32), best - normaliser]  # float32 holds token ids to 2**24 exactly
        if own is not None:
            table.append(own.gather(1, token_ids))
        host = torch.cat(table, dim=1).cpu().numpy()  # the only wait for the device in a step
        return _split(host, count, requests)

    def _favor_the_end(self, logits: Tensor, requests: Sequence[Request]) -> None:
        """`ExponentialDecayLengthPenalty` of `generate()`."""
        gains = {row: gain for request in requests if (gain := request.search.end_gain) for row in request.rows}
        if gains:
            rows = to_device(list(gains), logits.device)
            scores = logits[rows, self._eos_token_id]
            factors = to_device(np.array(list(gains.values())), logits.device).to(torch.float32)
            gained = (scores.abs() * factors).masked_fill(~scores.isfinite(), 0)
            logits[rows, self._eos_token_id] = scores + gained


def _split(host: Float32Array, count: int, requests: Sequence[Request]) -> list[Candidates]:
    """Split the table from the device into candidates per request."""
    ids = host[:, _FORCED : _FORCED + count].astype("int64")
    scores = host[:, _FORCED + count : _FORCED + 2 * count]
    log_probabilities = host[:, -count:]  # if no rule changed a score, these are the scores
    return [
        Candidates(
            ids[request.rows, : request.search.candidates_needed],
            scores[request.rows, : request.search.candidates_needed],
            log_probabilities[request.rows, : request.search.candidates_needed],
            host[request.rows, 0],
            host[request.rows, 1],
        )
        for request in requests
    ]


def _top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:
        best = logits.max(dim=-1, keepdim=True)
        return best.values, best.indices
    top = logits.topk(count, dim=-1)
    return top.values, top.indices


def _use_log_probabilities(logits: Tensor, normaliser: Tensor, own: Tensor, requests: Sequence[Request]) -> None:
    """Replace logits by log-probabilities for beam search, as `generate()` does; greedy search processes raw logits."""
    rows = [row for request in requests if request.search.beams > 1 for row in request.rows]
    if rows:
        places = to_device(rows, logits.device)
        logits[places] = own[places]
        normaliser[places] = 0


def _penalize_repetition(logits: Tensor, requests: Sequence[Request]) -> None:
    """`RepetitionPenaltyLogitsProcessor` of `generate()`."""
    penalized = [request for request in requests if request.search.repetition_penalty != 1]
    if penalized:
        histories = [request.search.history for request in penalized]
        sizes = [history.size for history in histories]
        rows = [
            np.repeat(request.rows, history.shape[1]) for request, history in zip(penalized, histories, strict=True)
        ]
        tokens = [history.ravel() for history in histories]
        penalties = np.repeat(np.array([request.search.repetition_penalty for request in penalized], np.float32), sizes)
        places = tuple(to_device(np.stack([np.concatenate(rows), np.concatenate(tokens)]), logits.device))
        penalty = to_device(penalties, logits.device)
        scores = logits[places]
        logits[places] = torch.where(scores < 0, scores * penalty, scores / penalty)


def _forbid(logits: Tensor, requests: Sequence[Request]) -> None:
    vocabulary = logits.shape[1]
    forbidden = [
        (request.rows[beam], token)
        for request in requests
        for beam, token in request.search.forbidden_tokens()
        if token < vocabulary
    ]
    if forbidden:
        rows, tokens = to_device(forbidden, logits.device).T
        logits[rows, tokens] = -torch.inf
    never = [(row, request.search.never) for request in requests if request.search.never.size for row in request.rows]
    if never:
        pairs = np.concatenate([np.stack([np.full_like(tokens, row), tokens]) for row, tokens in never], axis=1)
        rows, tokens = to_device(pairs[:, pairs[1] < vocabulary], logits.device)
        logits[rows, tokens] = -torch.inf
