import random

import pytest

from training.demo.answers import make_example, tasks_of
from training.demo.sampling import sample_scene
from training.demo.tokenizer import LEADING_TOKENS, special_tokens

UNKNOWN = ["xylophone", "Überraschung", "日本語", "🙂 \t\n", "a\u0000b", "WORDS never seen, 1234?!"]


def test_answers_survive_encoding(processor):
    for seed in range(100):
        scene = sample_scene(seed)
        for task in tasks_of(scene):
            answer = make_example(scene, task, random.Random(seed)).answer
            ids = processor.tokenizer(answer)["input_ids"]
            assert processor.tokenizer.decode(ids) == f"<s>{answer}</s>"


@pytest.mark.parametrize("text", UNKNOWN)
def test_any_text_survives_encoding(processor, text):
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.unk_token_id not in ids
    assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_are_ordered_as_in_the_official_vocabulary(processor):
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(LEADING_TOKENS) == [0, 1, 2, 3]
    ids = tokenizer.convert_tokens_to_ids(special_tokens())
    assert ids == list(range(ids[0], len(tokenizer)))
    assert tokenizer.image_token_id == ids[-1]
    assert len(ids) == 1026


def test_every_word_of_an_answer_is_one_token(processor):
    assert len(processor.tokenizer.tokenize("A red circle and two orange squares.")) == 8
