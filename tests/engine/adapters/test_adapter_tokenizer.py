"""Tokenizers in adapters' folders."""

import pytest
from florence2_server.engine.adapters.adapter_files import read_adapter
from florence2_server.engine.errors import AdapterError

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.adapters import peft_adapters
from tests.engine.checkpoint.folders import load_folder
from tests.original_layout import OFFICIAL_TOKENS, fine_tuned_tokenizer


def with_added_tokens(base, folder, tokens):
    """An adapter that adds tokens, without their tokenizer."""
    first = len(base.model.lm_head.weight)
    ids = list(range(first, first + tokens))
    options = {"r": 2, "target_modules": ["q_proj"], "trainable_token_indices": ids}
    peft_adapters.save(peft_adapters.make_adapter(base.model, vocabulary=first + tokens, **options), folder)


def test_added_tokens(base, tiny, tmp_path):
    with_added_tokens(base, tmp_path, 2)
    fine_tuned_tokenizer(tiny, ("partnumber", "serialnumber")).save_pretrained(tmp_path)
    adapter = read_adapter(tmp_path, base, max_rank=4)
    assert adapter.tokenizer.convert_tokens_to_ids(["<and>", "partnumber", "serialnumber"]) == [51288, 51289, 51290]
    assert adapter.tokenizer("What is the partnumber?").input_ids.count(51289) == 1
    assert adapter.tensors.vocabulary == 51291


def test_the_tokenizer_of_the_base_is_not_the_adapters_own(base, tiny, folder):
    fine_tuned_tokenizer(tiny).save_pretrained(folder)
    assert read_adapter(folder, base, max_rank=4).tokenizer is None


def test_an_adapter_without_a_tokenizer(base, folder):
    assert read_adapter(folder, base, max_rank=4).tokenizer is None


def test_added_tokens_of_a_base_in_the_native_layout(tmp_path):
    base = load_folder(DEMO_CHECKPOINT)
    tokenizer = type(base.tokenizer).from_pretrained(DEMO_CHECKPOINT)
    tokenizer.add_tokens(["partnumber"])
    tokenizer.save_pretrained(tmp_path)
    peft_adapters.save(peft_adapters.make_adapter(base.model, r=2, target_modules=["q_proj"]), tmp_path)
    adapter = read_adapter(tmp_path, base, max_rank=4)  # the model has more rows than the tokenizer has tokens
    assert adapter.tokenizer.convert_tokens_to_ids("partnumber") == len(base.tokenizer)


def test_a_token_without_a_row(base, tiny, folder):
    fine_tuned_tokenizer(tiny, ("partnumber",)).save_pretrained(folder)
    with pytest.raises(AdapterError, match="'partnumber' at id 51289, but the model has 51289 embeddings"):
        read_adapter(folder, base, max_rank=4)


def test_a_token_at_another_id(base, tiny, folder):
    other = type(base.tokenizer).from_pretrained(tiny)
    other.add_tokens(["partnumber", *OFFICIAL_TOKENS], special_tokens=True)
    other.save_pretrained(folder)
    with pytest.raises(AdapterError, match=r"tokenizer: token \d+: got .*, expected ") as error:
        read_adapter(folder, base, max_rank=4)
    assert "\n" not in str(error.value)
