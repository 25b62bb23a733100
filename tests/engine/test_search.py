import subprocess
import sys

import numpy as np
import pytest
import torch
from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.completion import FinishReason
from florence2_server.engine.generation import Generation
from florence2_server.engine.rules import CheckpointRules, repeating_tokens
from florence2_server.engine.search import BeamCopy, Search
from florence2_server.engine.search_options import EarlyStopping, SearchOptions
from florence2_server.engine.searches import start_search

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


def make_generation(**options) -> Generation:
    search = start_search(make_options(**options), [0, 2])
    return Generation(image=None, prompt_ids=[0, 2], search=search, rows=list(range(search.beams)))


def logits_preferring(*tokens: int) -> torch.Tensor:
    logits = torch.zeros(1, VOCABULARY)
    for height, token in enumerate(reversed(tokens), start=1):
        logits[0, token] = height
    return logits


def advance(generations: list[Generation], logits: torch.Tensor) -> list[list[BeamCopy]]:
    candidates = CandidateFinder(BOS, EOS).find(logits, generations)
    return [generation.search.advance(each) for generation, each in zip(generations, candidates, strict=True)]


def searching(generated: list[int] = (), **options) -> Generation:
    """A greedy search with these tokens so far."""
    generation = make_generation(**options)
    generation.search._token_ids[0, 1 : len(generated) + 1] = generated
    generation.search.generated = len(generated)
    return generation


def taken(search: Search) -> tuple[int, FinishReason | None]:
    if search.completion is not None:
        return search.completion.token_ids[-1], search.completion.finish_reason
    return search.last_token_ids()[0], None


@pytest.mark.parametrize(
    ("generation", "preferred", "token"),
    [
        (searching(), [5], (BOS, None)),
        (searching(forced_bos_token_id=None), [5], (5, None)),
        (searching([0]), [5], (5, None)),
        (searching([0]), [EOS, 5], (EOS, FinishReason.STOP)),
        (searching([0], min_new_tokens=2), [EOS, 5], (5, None)),
        (searching([0, 5], min_new_tokens=2), [EOS, 5], (EOS, FinishReason.STOP)),
        (searching([5, 6, 5], no_repeat_ngram_size=2), [6, 7], (7, None)),
        (searching([5], suppress_bos=True), [0, 7], (7, None)),
        (searching(suppress_bos=True), [0, 7], (BOS, None)),  # still forced at the start
        (searching([0], max_new_tokens=2), [5], (EOS, FinishReason.LENGTH)),
        (searching([0], max_new_tokens=2), [EOS], (EOS, FinishReason.STOP)),
        (searching([0], max_new_tokens=2, forced_eos_token_id=None), [5], (5, FinishReason.LENGTH)),
        (searching([], max_new_tokens=1), [5], (EOS, FinishReason.LENGTH)),
    ],
)
def test_the_rules_of_generate_decide_the_next_token(generation, preferred, token):
    advance([generation], logits_preferring(*preferred))
    assert taken(generation.search) == token


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


def test_a_rule_of_one_generation_does_not_affect_its_neighbors():
    generations = [searching([5, 6, 5], no_repeat_ngram_size=2), searching([5, 6, 5])]
    generations[1].rows = [1]
    advance(generations, logits_preferring(6, 7).repeat(2, 1))
    assert [generation.search.last_token_ids() for generation in generations] == [[7], [6]]


def test_log_probabilities_are_the_models_own_even_if_a_rule_chose():
    generation = make_generation(max_new_tokens=2)
    logits = logits_preferring(5, 7)
    expected = logits.log_softmax(dim=-1)[0]
    advance([generation], logits.clone())
    advance([generation], logits.clone())
    completion = generation.search.completion
    assert completion.token_ids == (EOS, BOS, EOS)
    assert np.allclose(completion.log_probabilities, [expected[BOS], expected[EOS]])


def test_a_beam_with_one_continuation_stays_on_its_row():
    generation = make_generation(num_beams=2, forced_bos_token_id=None)
    assert advance([generation], logits_preferring(5, 6).repeat(2, 1)) == [[BeamCopy(source=0, target=1, first=0)]]
    assert generation.search.last_token_ids() == [5, 6]
    # The beam on row 1 overtakes the other one; a change of rank moves nothing.
    assert advance([generation], torch.cat([logits_preferring(7), 20 * logits_preferring(8)]) * 9) == [[]]
    assert generation.search.last_token_ids() == [7, 8]


@pytest.mark.parametrize("beams", [2, 3, 8])
def test_after_its_copies_each_rows_cache_holds_the_beams_own_tokens(beams):
    generator = torch.Generator().manual_seed(beams)
    generation = make_generation(num_beams=beams, max_new_tokens=60, min_new_tokens=60, forced_bos_token_id=None)
    search = generation.search
    cache = np.full((beams, 61), -1)
    copied = 0
    while search.completion is None:
        cache[:, search.generated] = search.last_token_ids()
        (copies,) = advance([generation], torch.randn(beams, VOCABULARY, generator=generator))
        for source, target, first in copies:
            cache[target, first : search.generated] = cache[source, first : search.generated]
            copied += search.generated - first
        if search.completion is None:
            assert (cache[:, : search.generated] == search._token_ids[:, : search.generated]).all()
    assert 0 < copied < 60 * 60 * beams / 8, "beams diverge late: most of their history is equal already"


def test_the_best_finished_beam_is_the_completion():
    generation = make_generation(num_beams=2, forced_bos_token_id=None, early_stopping=EarlyStopping.FIRST)
    advance([generation], logits_preferring(5, 6).repeat(2, 1))
    end_or_continue = torch.full((2, VOCABULARY), -30.0)
    end_or_continue[:, EOS] = 0
    advance([generation], end_or_continue)
    assert generation.search.completion.token_ids == (EOS, 5, EOS)
    assert generation.search.completion.finish_reason is FinishReason.STOP


def test_scheduler_and_searches_import_no_torch():
    code = "import sys; from florence2_server.engine import scheduler, searches; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={}).returncode == 0
