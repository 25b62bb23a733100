"""A small byte-level BPE tokenizer with the structure of Florence-2's."""

# ruff: noqa: S311 - seeded on purpose

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from training.demo.answers import make_example, tasks_of
from training.demo.sampling import TRAINING_SEEDS, sample_scene

LEADING_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]
LOCATIONS = 1000
BPE_VOCABULARY = 640


def special_tokens() -> list[str]:
    """The tokens after the BPE vocabulary, in the official order."""
    pairs = ("cap", "ncap", "dcap", "grounding", "seg")
    return [
        *("<mask>", "<od>", "</od>", "<ocr>", "</ocr>"),
        *(f"<loc_{index}>" for index in range(LOCATIONS)),
        *(token for name in pairs for token in (f"<{name}>", f"</{name}>")),
        # The misspelling is the official vocabulary's.
        *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
        *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>", "<image>"),
    ]


def train_tokenizer(prompts: list[str], scenes: int = 2000) -> Tokenizer:
    """Train a tokenizer in which every word of the prompts and of the answers about `scenes` scenes is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY,
        special_tokens=LEADING_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*prompts, *_texts(scenes)], trainer)
    return Tokenizer.from_str(json.dumps(_official_structure(json.loads(tokenizer.to_str())["model"])))


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token of the vocabulary."""
    index = tokenizer.token_to_id(token)
    assert index is not None, f"{token} is in every vocabulary of `train_tokenizer`"
    return index


def _texts(scenes: int) -> Iterator[str]:
    """Input texts and answers, without location tokens."""
    for seed in TRAINING_SEEDS[:scenes]:
        scene, rng = sample_scene(seed), random.Random(seed)
        for task in tasks_of(scene):
            example = make_example(scene, task, rng)
            for text in (example.text, example.answer):
                yield from (part for part in text.replace("<", ">").split(">") if part and "loc_" not in part)


def _official_structure(model: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer.json of a trained BPE model, with the structure of the official one."""
    vocabulary = dict(model["vocab"])
    trailing = {token: len(vocabulary) + offset for offset, token in enumerate(special_tokens())}
    added = {token: vocabulary[token] for token in LEADING_TOKENS} | trailing
    vocabulary["<mask>"] = trailing["<mask>"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(token, index) for token, index in added.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": ["</s>", vocabulary["</s>"]],
            "cls": ["<s>", vocabulary["<s>"]],
            "trim_offsets": True,
            "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {**model, "vocab": vocabulary, "continuing_subword_prefix": "", "end_of_word_suffix": ""},
    }


def _added_token(token: str, index: int) -> dict[str, Any]:
    # A mask includes the space in front of it, as in RoBERTa.
    flags = {"single_word": False, "lstrip": "mask" in token, "rstrip": False, "normalized": False}
    return {"id": index, "content": token, **flags, "special": True}
