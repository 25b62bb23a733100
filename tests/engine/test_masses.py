"""The mass of each token, compared with the logits of Hugging Face `generate()`."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from florence2.v1 import GenerationOptions, TaskRequest
from florence2_server.engine.candidates import CandidateFinder
from florence2_server.engine.masses import LOCATIONS, LocationTokens
from florence2_server.engine.rules import CheckpointRules

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.served import Served
from tests.engine.test_candidates import BOS, EOS, running
from tests.reference import TASKS, Reference, png
from training.demo.sampling import sample_scene
from training.demo.scenes import draw

BINS = 20  # what the protos state
# The neighbors of an answer's locations are forbidden or penalized in some of them; masses are the model's own.
REQUESTS = [
    (TASKS[3], {"num_beams": 1, "max_new_tokens": 22}),
    (TASKS[3], {"num_beams": 3, "max_new_tokens": 16, "no_repeat_ngram_size": 1}),
    (TASKS[13], {"num_beams": 2, "max_new_tokens": 14, "repetition_penalty": 1.3}),
    (TASKS[0], {"num_beams": 1, "max_new_tokens": 12, "min_new_tokens": 12}),
]


def summed(reference: Reference, tokens: list[int], logits: torch.Tensor) -> tuple[np.ndarray, int]:
    """The mass of each generated token, and how many of them are locations."""
    vocabulary = reference.processor.tokenizer.get_vocab()
    locations = [vocabulary[f"<loc_{bin_}>"] for bin_ in range(LOCATIONS)]
    masses, found = [], 0
    for token, row in zip(tokens[1:], logits.double().softmax(dim=-1), strict=True):
        same = [token]
        if token in locations:
            bin_ = locations.index(token)
            same = locations[max(0, bin_ - BINS) : bin_ + BINS + 1]
            found += 1
        masses.append(row[same].sum().item())
    return np.array(masses), found


@pytest.mark.parametrize("folder", ["random weights", "demo checkpoint"])
def test_masses_are_the_sums_of_the_logits_of_generate_in_a_shared_batch(folder, request):
    checkpoint = DEMO_CHECKPOINT if folder == "demo checkpoint" else request.getfixturevalue("random_checkpoint")
    image = png(draw(sample_scene(1)))
    requests = [TaskRequest(**task, generation=GenerationOptions(**options)) for task, options in REQUESTS]
    with Served(checkpoint, slots=len(requests)) as served, ThreadPoolExecutor(len(requests)) as callers:
        completions = list(callers.map(lambda each: served.run(image, each), requests))
    reference = Reference(checkpoint)
    locations = compared = 0
    for each, completion in zip(requests, completions, strict=True):
        assert len(completion.masses) == len(completion.token_ids) - 1
        tokens, logits = reference.logits(image, each)
        expected, found = summed(reference, tokens, logits)
        # A mass depends on the tokens before it: near ties of random weights may lead to others.
        same = [ours == theirs for ours, theirs in zip(completion.token_ids, tokens, strict=False)]
        common = [*same, False].index(False) - 1
        assert np.allclose(completion.masses[:common], expected[:common], atol=1e-4), each
        locations += found
        compared += common
    assert compared > 30
    assert locations > 20 or folder == "random weights"


def test_windows_end_at_the_first_and_last_location():
    first = 8
    vocabulary = first + LOCATIONS + 20
    rules = CheckpointRules(suppressed_tokens=(first + 3, first + 502))
    for best in (first, first + 2, first + 500, first + LOCATIONS - 1, first - 1, first + LOCATIONS):
        logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(best))
        logits[:, best] += 12
        probabilities = logits.double().softmax(dim=-1).numpy()
        for options in ({}, {"rules": rules}, {"rules": rules, "repetition_penalty": 1.5}):
            generation = running({**options, "no_repeat_ngram_size": 0}, 3, 2, 0, 0)
            (plain,) = CandidateFinder(BOS, EOS).find(logits.clone(), [generation])
            (found,) = CandidateFinder(BOS, EOS, LocationTokens(first)).find(logits.clone(), [generation])
            for field in ("token_ids", "scores", "log_probabilities", "bos_log_probabilities", "eos_log_probabilities"):
                assert np.array_equal(getattr(found, field), getattr(plain, field)), field
            assert (found.token_ids[:, 0] == best).all()
            assert np.allclose(plain.masses, np.exp(plain.log_probabilities))
            for beam, token in np.argwhere(np.isfinite(found.scores)):
                bin_ = found.token_ids[beam, token] - first
                same = np.arange(max(0, bin_ - BINS), min(LOCATIONS, bin_ + BINS + 1))
                same = first + same if 0 <= bin_ < LOCATIONS else [first + bin_]
                assert found.masses[beam, token] == pytest.approx(probabilities[beam, same].sum(), rel=1e-4)


def test_masses_are_at_most_one():
    logits = torch.full((1, LOCATIONS), -40.0)
    logits[0, 500:503] = 30
    (candidates,) = CandidateFinder(BOS, EOS, LocationTokens(0)).find(logits, [running({}, 1, 2, 0, 0)])
    assert 1 - 1e-6 <= candidates.masses[0, 0] <= 1


def test_locations_outside_the_vocabulary_leave_probabilities():
    logits = torch.zeros((1, LOCATIONS))
    (candidates,) = CandidateFinder(BOS, EOS, LocationTokens(9)).find(logits, [running({}, 1, 2, 0, 0)])
    assert candidates.masses[0, 0] == pytest.approx(1 / LOCATIONS)


def test_location_tokens_are_found_if_their_ids_are_consecutive():
    ids = {f"<loc_{bin_}>": 77 + bin_ for bin_ in range(LOCATIONS)}
    scattered = {**ids, "<loc_9>": 5}
    incomplete = dict(list(ids.items())[:-1])
    found = [LocationTokens.of(SimpleNamespace(get_vocab=each.copy)) for each in (ids, scattered, incomplete, {})]
    assert found == [LocationTokens(77), None, None, None]
