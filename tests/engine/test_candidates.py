"""One decode step over generations with different rules, compared with the logits processors of `generate()`."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.generation import Generation
from florence2_server.engine.rules import CheckpointRules, ExponentialDecay
from florence2_server.engine.searches import start_search
from transformers import GenerationConfig, GenerationMixin

from tests.engine.test_search import make_options

VOCABULARY = 12
BOS, EOS, IMAGE = 0, 2, 11
PROMPT = [0, 5, 6, 7, 5, 2]
BAD_WORDS = ((4,), (5, 6), (7, 7, 8), (40,), (2, 3))


class Processors(GenerationMixin):
    """The logits processors of `generate()` for an encoder-decoder model."""

    config = SimpleNamespace(is_encoder_decoder=True)
    device = torch.device("cpu")

    def of(self, **config):
        generation_config = GenerationConfig(eos_token_id=EOS, decoder_start_token_id=EOS, max_length=1000, **config)
        self._prepare_special_tokens(generation_config, device="cpu")
        return self._get_logits_processor(
            generation_config=generation_config,
            input_ids_seq_length=1,
            encoder_input_ids=torch.tensor([[IMAGE] * 9 + PROMPT]),
            device="cpu",
            model_kwargs={},
        )


# Our options, and the same in a generation config.
CASES = {
    "none": ({}, {}),
    "penalty": ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    "reward": ({"repetition_penalty": 0.4}, {"repetition_penalty": 0.4}),
    "n-grams": ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    "encoder n-grams": (
        {"rules": CheckpointRules(encoder_no_repeat_ngram_size=2, image_token_id=IMAGE)},
        {"encoder_no_repeat_ngram_size": 2},
    ),
    "encoder tokens": (
        {"rules": CheckpointRules(encoder_no_repeat_ngram_size=1, image_token_id=IMAGE)},
        {"encoder_no_repeat_ngram_size": 1},
    ),
    "bad words": (
        {"rules": CheckpointRules(bad_words=BAD_WORDS)},
        {"bad_words_ids": [list(word) for word in BAD_WORDS if word != (40,)]},  # rejected there: no such token
    ),
    "suppressed": ({"rules": CheckpointRules(suppressed_tokens=(3, 9, 99))}, {"suppress_tokens": [3, 9, 99]}),
    "suppressed at begin": (
        {"rules": CheckpointRules(begin_suppressed_tokens=(1, 8)), "forced_bos_token_id": None},
        {"begin_suppress_tokens": [1, 8]},
    ),
    "suppressed after the forced": (
        {"rules": CheckpointRules(begin_suppressed_tokens=(1, 8))},
        {"begin_suppress_tokens": [1, 8], "forced_bos_token_id": BOS},
    ),
    "decay": (
        {"rules": CheckpointRules(exponential_decay=ExponentialDecay(2, 1.4))},
        {"exponential_decay_length_penalty": (2, 1.4)},
    ),
    "decay of a forbidden end": (
        {"rules": CheckpointRules(exponential_decay=ExponentialDecay(0, 1.4)), "min_new_tokens": 4},
        {"exponential_decay_length_penalty": (0, 1.4), "min_new_tokens": 4},
    ),
    "all": (
        {
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 3,
            "rules": CheckpointRules(2, IMAGE, ExponentialDecay(1, 0.7), BAD_WORDS[:3], (9,), (1,)),
        },
        {
            "repetition_penalty": 1.2,
            "no_repeat_ngram_size": 3,
            "encoder_no_repeat_ngram_size": 2,
            "exponential_decay_length_penalty": (1, 0.7),
            "bad_words_ids": [list(word) for word in BAD_WORDS[:3]],
            "suppress_tokens": [9],
            "begin_suppress_tokens": [1],
            "forced_bos_token_id": BOS,
        },
    ),
}


def running(options: dict, beams: int, generated: int, first_row: int, seed: int) -> Generation:
    """A generation whose beams have random tokens so far."""
    search = start_search(make_options(**options, num_beams=beams), PROMPT)
    search.generated = generated
    search._token_ids[:, 1 : generated + 1] = np.random.default_rng(seed).integers(0, VOCABULARY, (beams, generated))
    return Generation(image=None, prompt_ids=PROMPT, search=search, rows=list(range(first_row, first_row + beams)))


def expected_scores(generation: Generation, config: dict, logits: torch.Tensor) -> torch.Tensor:
    """The scores that `generate()` compares, as log-probabilities."""
    log_probabilities = logits.log_softmax(dim=-1)
    history = torch.from_numpy(generation.search.history)
    processors = Processors().of(**config)
    if generation.search.beams > 1:
        return processors(history, log_probabilities)
    return processors(history, logits) - logits.logsumexp(dim=-1, keepdim=True)


@pytest.mark.parametrize("generated", [0, 1, 2, 3, 40])
def test_generations_with_different_rules_share_a_step(generated):
    generations, configs, rows = [], [], 0
    for seed, (options, config) in enumerate(CASES.values()):
        if generated == 0 and "forced_bos_token_id" in config:
            continue  # the search takes the forced token whatever the candidates are
        for beams in (1, 3):
            generations.append(running(options, beams, generated, rows, seed))
            configs.append(config)
            rows += beams
    logits = 4 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(generated))
    found = CandidateFinder(BOS, EOS).find(logits.clone(), generations)
    for generation, config, candidates in zip(generations, configs, found, strict=True):
        log_probabilities = logits[generation.rows].log_softmax(dim=-1)
        best = expected_scores(generation, config, logits[generation.rows]).topk(candidates.token_ids.shape[1], dim=-1)
        possible = best.values.isfinite().numpy()
        assert (candidates.token_ids == best.indices.numpy())[possible].all()
        assert np.allclose(candidates.scores, best.values, atol=1e-5)
        under_the_model = log_probabilities.gather(1, best.indices).numpy()
        assert np.allclose(candidates.log_probabilities[possible], under_the_model[possible], atol=1e-5)


def test_a_decay_beyond_the_range_of_floats_ends_the_search():
    rules = CheckpointRules(exponential_decay=ExponentialDecay(0, 1e6))
    generations = [running({"rules": rules}, beams, 90, 0, beams) for beams in (1, 3)]
    for generation in generations:
        logits = torch.randn(generation.search.beams, VOCABULARY)
        (candidates,) = CandidateFinder(BOS, EOS).find(logits, [generation])
        assert (candidates.token_ids[:, 0] == EOS).all()
        assert (candidates.log_probabilities[:, 0] <= 0).all()
        generation.search.advance(candidates)
        assert generation.search.beams > 1 or generation.search.completion.token_ids[-1] == EOS
