"""From a decode step's logits to what each search has to know: one pass on the device, one transfer to the host."""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence2_engine.request import Request
from florence2_engine.search import Candidates
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

    @torch.inference_mode()
    def find(self, logits: Tensor, requests: Sequence[Request]) -> list[Candidates]:
        """The candidates of each request's beams.

        Args:
            logits: (rows, vocabulary) float32; changed in place.
            requests: all that run; their beams are on the first rows.
        """
        normaliser = logits.logsumexp(dim=-1, keepdim=True)  # before any rule: scores are the model's own
        forced = torch.cat([logits[:, token : token + 1] for token in self._forced], dim=1)
        _forbid(logits, requests)
        count = min(max(request.search.candidates_needed for request in requests), logits.shape[1])
        best, token_ids = _top(logits, count)
        table = torch.cat([best - normaliser, forced - normaliser, token_ids.to(torch.float32)], dim=1)
        host = table.cpu().numpy()  # the one wait for the device in a step; float32 holds token ids to 2**24 exactly
        log_probabilities, forced_columns, ids = host[:, :count], host[:, count : count + _FORCED], host[:, -count:]
        ids = ids.astype("int64")
        return [
            Candidates(
                ids[request.rows, : request.search.candidates_needed],
                log_probabilities[request.rows, : request.search.candidates_needed],
                forced_columns[request.rows, 0],
                forced_columns[request.rows, 1],
            )
            for request in requests
        ]


def _top(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    if count == 1:
        best = logits.max(dim=-1, keepdim=True)
        return best.values, best.indices
    top = logits.topk(count, dim=-1)
    return top.values, top.indices


def _forbid(logits: Tensor, requests: Sequence[Request]) -> None:
    forbidden = [
        (request.rows[beam], token) for request in requests for beam, token in request.search.forbidden_tokens()
    ]
    if forbidden:
        rows, tokens = to_device(forbidden, logits.device).T
        logits[rows, tokens] = -torch.inf
