"""Greedy search: from a step's logits to each request's next token, by the token rules of Hugging Face `generate()`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from florence2_engine.request import FinishReason, Request


@dataclass(frozen=True)
class Choice:
    """A request's next token, and why its answer ends with it, if it does."""

    token_id: int
    finish_reason: FinishReason | None


@torch.inference_mode()
def choose(logits: Tensor, requests: Sequence[Request]) -> list[Choice]:
    """The next token of each request.

    Args:
        logits: (rows, vocabulary) float32; changed in place.
        requests: one a row.
    """
    _forbid(logits, requests)
    best: list[int] = logits.argmax(dim=-1).tolist()  # the one wait for the device in a step
    return [_choice(request, token_id) for request, token_id in zip(requests, best, strict=True)]


def _forbid(logits: Tensor, requests: Sequence[Request]) -> None:
    forbidden = [(row, token) for row, request in enumerate(requests) for token in _forbidden_tokens(request)]
    if forbidden:
        rows, tokens = torch.tensor(forbidden, device=logits.device).T
        logits[rows, tokens] = -torch.inf


def _forbidden_tokens(request: Request) -> list[int]:
    options = request.options
    tokens = list(request.repeating_tokens())
    if options.suppress_bos:
        tokens.append(options.bos_token_id)
    if request.generated < options.min_new_tokens:
        tokens.append(options.eos_token_id)
    return tokens


def _choice(request: Request, best: int) -> Choice:
    options = request.options
    is_last = request.generated + 1 == options.max_new_tokens
    token_id = best
    if is_last and options.forced_eos_token_id is not None:
        token_id = options.forced_eos_token_id
    elif request.generated == 0 and options.forced_bos_token_id is not None:
        token_id = options.forced_bos_token_id
    # An end that the length forced is no end of the model's own: it counts only where the model wanted to stop too.
    if token_id == options.eos_token_id and (not is_last or best == options.eos_token_id):
        return Choice(token_id, FinishReason.STOP)
    return Choice(token_id, FinishReason.LENGTH if is_last else None)
