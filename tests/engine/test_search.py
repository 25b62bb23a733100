import subprocess
import sys

import numpy as np
import pytest
import torch
from florence2_engine.candidates import CandidateFinder
from florence2_engine.request import EarlyStopping, FinishReason, Request, SearchOptions
from florence2_engine.rules import CheckpointRules, repeating_tokens
from florence2_engine.search import BeamCopy, Search, start_search

VOCABULARY = 10
BOS, EOS = 0, 2


def make_options(**options) -> SearchOptions:
    defaults = {
        "max_new_tokens": 100,
        "min_new_tokens": 0,
        "num_beams": 1,
        "length_penalty": 1.0,
        "early_stopping": EarlyStopping.HEURISTIC,
        "no_repeat_ngram_size": 0,
        "repetition_penalty": 1.0,
        "suppress_bos": False,
        "rules": CheckpointRules(),
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": EOS,
        "forced_bos_token_id": BOS,
        "forced_eos_token_id": EOS,
    }
    return SearchOptions(**{**defaults, **options})


def make_request(**options) -> Request:
    search = start_search(make_options(**options), [0, 2])
    return Request(image=None, prompt_ids=[0, 2], search=search, rows=list(range(search.beams)))


def logits_preferring(*tokens: int) -> torch.Tensor:
    logits = torch.zeros(1, VOCABULARY)
    for height, token in enumerate(reversed(tokens), start=1):
        logits[0, token] = height
    return logits


def advance(requests: list[Request], logits: torch.Tensor) -> list[list[BeamCopy]]:
    candidates = CandidateFinder(BOS, EOS).find(logits, requests)
    return [request.search.advance(each) for request, each in zip(requests, candidates, strict=True)]


def searching(generated: list[int] = (), **options) -> Request:
    """A greedy search that has generated these tokens."""
    request = make_request(**options)
    request.search._token_ids[0, 1 : len(generated) + 1] = generated
    request.search.generated = len(generated)
    return request


def taken(search: Search) -> tuple[int, FinishReason | None]:
    if search.outcome is not None:
        return search.outcome.token_ids[-1], search.outcome.finish_reason
    return search.last_token_ids()[0], None


@pytest.mark.parametrize(
    ("request_", "preferred", "token"),
    [
        (searching(), [5], (BOS, None)),
        (searching(forced_bos_token_id=None), [5], (5, None)),
        (searching([0]), [5], (5, None)),
        (searching([0]), [EOS, 5], (EOS, FinishReason.STOP)),
        (searching([0], min_new_tokens=2), [EOS, 5], (5, None)),
        (searching([0, 5], min_new_tokens=2), [EOS, 5], (EOS, FinishReason.STOP)),
        (searching([5, 6, 5], no_repeat_ngram_size=2), [6, 7], (7, None)),
        (searching([5], suppress_bos=True), [0, 7], (7, None)),
        (searching(suppress_bos=True), [0, 7], (BOS, None)),  # forced at the start all the same
        (searching([0], max_new_tokens=2), [5], (EOS, FinishReason.LENGTH)),
        (searching([0], max_new_tokens=2), [EOS], (EOS, FinishReason.STOP)),
        (searching([0], max_new_tokens=2, forced_eos_token_id=None), [5], (5, FinishReason.LENGTH)),
        (searching([], max_new_tokens=1), [5], (EOS, FinishReason.LENGTH)),
    ],
)
def test_the_rules_of_generate_decide_the_next_token(request_, preferred, token):
    advance([request_], logits_preferring(*preferred))
    assert taken(request_.search) == token


@pytest.mark.parametrize(
    ("size", "tokens", "repeating"),
    [
        (0, [5, 5, 5], []),
        (1, [5, 6], [2, 5, 6]),  # the decoder start token counts too
        (2, [5, 6, 5], [6]),
        (2, [5, 6, 5, 7, 5], [6, 7]),
        (3, [5, 6, 7, 5, 6], [7]),
        (3, [5, 6, 7, 6, 5], []),
        (4, [5], []),
    ],
)
def test_tokens_that_would_repeat_an_ngram_are_forbidden(size, tokens, repeating):
    history = np.array([[EOS, *tokens]])
    assert repeating_tokens(history, size) == [(0, token) for token in repeating]


def test_a_rule_of_one_request_leaves_its_neighbours_alone():
    requests = [searching([5, 6, 5], no_repeat_ngram_size=2), searching([5, 6, 5])]
    requests[1].rows = [1]
    advance(requests, logits_preferring(6, 7).repeat(2, 1))
    assert [request.search.last_token_ids() for request in requests] == [[7], [6]]


def test_log_probabilities_are_the_models_own_also_where_a_rule_chose():
    request = make_request(max_new_tokens=2)
    logits = logits_preferring(5, 7)
    expected = logits.log_softmax(dim=-1)[0]
    advance([request], logits.clone())
    advance([request], logits.clone())
    outcome = request.search.outcome
    assert outcome.token_ids == (EOS, BOS, EOS)
    assert np.allclose(outcome.log_probabilities, [expected[BOS], expected[EOS]])


def test_a_beam_that_goes_on_alone_stays_on_its_row():
    request = make_request(num_beams=2, forced_bos_token_id=None)
    assert advance([request], logits_preferring(5, 6).repeat(2, 1)) == [[BeamCopy(source=0, target=1, first=0)]]
    assert request.search.last_token_ids() == [5, 6]
    # The beam on row 1 overtakes the other one: a change of rank moves nothing.
    assert advance([request], torch.cat([logits_preferring(7), 20 * logits_preferring(8)]) * 9) == [[]]
    assert request.search.last_token_ids() == [7, 8]


@pytest.mark.parametrize("beams", [2, 3, 8])
def test_after_its_copies_every_rows_cache_holds_the_beams_own_tokens(beams):
    generator = torch.Generator().manual_seed(beams)
    request = make_request(num_beams=beams, max_new_tokens=60, min_new_tokens=60, forced_bos_token_id=None)
    search = request.search
    cache = np.full((beams, 61), -1)
    copied = 0
    while search.outcome is None:
        cache[:, search.generated] = search.last_token_ids()
        (copies,) = advance([request], torch.randn(beams, VOCABULARY, generator=generator))
        for source, target, first in copies:
            cache[target, first : search.generated] = cache[source, first : search.generated]
            copied += search.generated - first
        if search.outcome is None:
            assert (cache[:, : search.generated] == search._token_ids[:, : search.generated]).all()
    assert 0 < copied < 60 * 60 * beams / 8, "beams part late: most of their history is the same already"


def test_the_best_of_the_finished_beams_is_the_answer():
    request = make_request(num_beams=2, forced_bos_token_id=None, early_stopping=EarlyStopping.FIRST)
    advance([request], logits_preferring(5, 6).repeat(2, 1))
    end_or_go_on = torch.full((2, VOCABULARY), -30.0)
    end_or_go_on[:, EOS] = 0
    advance([request], end_or_go_on)
    assert request.search.outcome.token_ids == (EOS, 5, EOS)
    assert request.search.outcome.finish_reason is FinishReason.STOP


def test_requests_and_searches_import_no_torch():
    code = (
        "import florence2_engine.scheduler, florence2_engine.request, florence2_engine.search, sys;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
