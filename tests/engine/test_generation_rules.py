"""Logits processing that a checkpoint's generation config sets, compared with `generate()` under the same config."""

import itertools
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from florence2_server.engine.completion import Completion
from transformers import GenerationConfig

from tests.conftest import DEMO_CHECKPOINT, EXAMPLE_SCENE
from tests.engine.served import Served
from tests.engine.test_parity import assert_parity
from tests.reference import Case, Reference

GROUNDING = {"phrase_grounding": {"caption": "A red circle and a blue square."}}
TASKS = [{"caption": {}}, {"more_detailed_caption": {}}, GROUNDING]
OPTIONS = [
    {"num_beams": 1},
    {"num_beams": 3},
    {"num_beams": 2, "repetition_penalty": 1.7, "min_new_tokens": 5},
    {"num_beams": 1, "repetition_penalty": 0.6, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "early_stopping": 3, "length_penalty": 2.0, "suppress_bos": True},
]
LONGEST = 24


@dataclass(frozen=True)
class Rule:
    """Changes of a generation config, and whether they limit the length."""

    config: dict
    limits_length: bool = False


# Tokens of the demo checkpoint: red 321, circle 271, blue 324, square 276, white 359, " a" 282, "," 15, "A" 36, "." 17.
RULES = {
    "repetition": Rule({"repetition_penalty": 1.5}),
    "encoder n-grams": Rule({"encoder_no_repeat_ngram_size": 2}),
    "encoder tokens": Rule({"encoder_no_repeat_ngram_size": 1}),
    "decay": Rule({"exponential_decay_length_penalty": [4, 1.3]}),
    "decay of a reward": Rule({"exponential_decay_length_penalty": [3, 0.5], "min_length": 7}),
    "bad words": Rule({"bad_words_ids": [[359], [321, 271], [282, 324, 276], [2], [36, 15]]}),
    "suppressed": Rule({"suppress_tokens": [271, 359, -1, 60000], "forced_bos_token_id": None}),
    "suppressed end": Rule({"suppress_tokens": [2], "forced_eos_token_id": None}),
    "suppressed at begin, not forced": Rule({"begin_suppress_tokens": [0, 36, 2], "forced_bos_token_id": None}),
    "suppressed at begin, after the forced": Rule({"begin_suppress_tokens": [36, 321, 2]}),
    "shortest": Rule({"min_length": 22}),
    "shortest of new tokens": Rule({"min_length": 30, "min_new_tokens": 18}),
    "longest": Rule({"max_length": 9}, limits_length=True),
    "longest of new tokens": Rule({"max_length": 9, "max_new_tokens": 12}, limits_length=True),
    "together": Rule(
        {
            "repetition_penalty": 1.2,
            "encoder_no_repeat_ngram_size": 3,
            "exponential_decay_length_penalty": (6, 1.1),
            "bad_words_ids": [[321, 271], [0, 36]],
            "suppress_tokens": [359],
            "begin_suppress_tokens": [36],
            "min_length": 9,
            "length_penalty": -1.5,
            "early_stopping": "never",
            "max_length": 19,
        },
        limits_length=True,
    ),
}
# Random weights generate more varied tokens, so that rules that change scores have more effect.
RANDOM_WEIGHTS = ["repetition", "decay", "together"]


class RuledReference(Reference):
    """Hugging Face with a generation config of its own, which sets the length unless the request does."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self._own_config = self.model.generation_config

    def without_rules(self, case: Case) -> Case:
        """The same request under the checkpoint's own config."""
        self.model.generation_config = self._own_config
        return self.case_of(case.image, case.request)

    def _keywords(self, options: dict) -> dict:
        keywords = super()._keywords(options)
        if "max_new_tokens" not in options:
            del keywords["max_new_tokens"]
        return keywords


@pytest.fixture(scope="module")
def checkpoint(request):
    return DEMO_CHECKPOINT if request.param == "demo" else request.getfixturevalue("random_checkpoint")


@pytest.fixture(scope="module")
def ruled_reference(checkpoint):
    return RuledReference(checkpoint)


@pytest.fixture
def with_config(checkpoint, tmp_path):
    """Makes a copy of the checkpoint with changes of its generation config."""

    def change(config: dict):
        folder = tmp_path / "checkpoint"
        shutil.copytree(checkpoint, folder, copy_function=lambda source, target: Path(target).symlink_to(source))
        path = folder / "generation_config.json"
        original = json.loads(path.read_text())
        path.unlink()
        path.write_text(json.dumps({**original, **config}))
        return folder

    return change


def completed_together(folder, cases: list[Case]) -> list[Completion]:
    """The completions of one engine for all cases, submitted at once."""
    served = Served(folder, slots=6, rows=14, prefill_batch=3)
    try:
        with ThreadPoolExecutor(12) as callers:
            return list(callers.map(served.complete, cases))
    finally:
        served.engine.close()


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [*(("demo", name) for name in RULES), *(("random", name) for name in RANDOM_WEIGHTS)],
    indirect=["checkpoint"],
)
def test_a_rule_of_the_checkpoint_gives_the_tokens_of_generate(checkpoint, ruled_reference, with_config, name):
    rule = RULES[name]
    folder = with_config(rule.config)
    length = {} if rule.limits_length else {"max_new_tokens": LONGEST}
    ruled_reference.model.generation_config = GenerationConfig.from_pretrained(folder)
    drawn = random.Random(name).sample(list(itertools.product(TASKS, OPTIONS)), 5)
    cases = [ruled_reference.case(EXAMPLE_SCENE.read_bytes(), task, {**length, **options}) for task, options in drawn]
    completions = completed_together(folder, cases)
    assert_parity(cases, completions)
    if checkpoint == DEMO_CHECKPOINT:  # the rules were chosen for it, so that each makes a difference
        without_rules = [ruled_reference.without_rules(case).expected for case in cases]
        assert without_rules != [case.expected for case in cases]
    for case, completion in zip(cases, completions, strict=True):
        assert all(log_probability <= 0 for log_probability in completion.log_probabilities), case.request
