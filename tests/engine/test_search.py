import dataclasses

import pytest
import torch
from florence2_engine.request import FinishReason
from florence2_engine.search import Choice, choose

from tests.engine.test_request import make_request

VOCABULARY = 10
EOS = 2


def logits_preferring(*tokens: int) -> torch.Tensor:
    logits = torch.zeros(1, VOCABULARY)
    for height, token in enumerate(reversed(tokens), start=1):
        logits[0, token] = height
    return logits


def request_with(generated: list[int] = (), **options):
    request = make_request(options.pop("no_repeat_ngram_size", 0))
    request.options = dataclasses.replace(request.options, **options)
    for token in generated:
        request.append(token)
    return request


@pytest.mark.parametrize(
    ("request_", "preferred", "choice"),
    [
        (request_with(), [5], Choice(0, None)),
        (request_with(forced_bos_token_id=None), [5], Choice(5, None)),
        (request_with([0]), [5], Choice(5, None)),
        (request_with([0]), [EOS, 5], Choice(EOS, FinishReason.STOP)),
        (request_with([0], min_new_tokens=2), [EOS, 5], Choice(5, None)),
        (request_with([0, 5], min_new_tokens=2), [EOS, 5], Choice(EOS, FinishReason.STOP)),
        (request_with([5, 6, 5], no_repeat_ngram_size=2), [6, 7], Choice(7, None)),
        (request_with([5], suppress_bos=True), [0, 7], Choice(7, None)),
        (request_with(suppress_bos=True), [0, 7], Choice(0, None)),  # forced at the start all the same
        (request_with([0], max_new_tokens=2), [5], Choice(EOS, FinishReason.LENGTH)),
        (request_with([0], max_new_tokens=2), [EOS], Choice(EOS, FinishReason.STOP)),
        (request_with([0], max_new_tokens=2, forced_eos_token_id=None), [5], Choice(5, FinishReason.LENGTH)),
        (request_with([], max_new_tokens=1), [5], Choice(EOS, FinishReason.LENGTH)),
    ],
)
def test_the_rules_of_generate_decide_the_next_token(request_, preferred, choice):
    assert choose(logits_preferring(*preferred), [request_]) == [choice]


def test_a_rule_of_one_request_leaves_its_neighbours_alone():
    requests = [request_with([5, 6, 5], no_repeat_ngram_size=2), request_with([5, 6, 5])]
    logits = logits_preferring(6, 7).repeat(2, 1)
    assert [choice.token_id for choice in choose(logits, requests)] == [7, 6]
