"""Rows of tokens that an adapter changes or adds: the tables are those of the model as peft loads it."""

import pytest
import torch
from florence2_server.engine.adapters.adapter_files import read_adapter
from florence2_server.engine.errors import AdapterError
from safetensors.torch import load_file, save_file

from tests.engine.adapters import peft_adapters

BASE = 51289
ADDED = [BASE, BASE + 1, BASE + 2]
RESIZED = BASE + 3
EMBEDDINGS = "base_model.model.model.language_model"


def read(folder, base):
    return read_adapter(folder, base, max_rank=64).tensors


def tables(model):
    """The rows of prompts, of answers, and of the output layer, of a peft model."""
    inner = model.base_model.model
    language_model = inner.model.language_model
    width = inner.config.text_config.d_model
    with torch.no_grad():
        outputs = inner.lm_head(torch.eye(width)).T
        tokens = torch.arange(len(outputs))
        return language_model.shared(tokens), language_model.decoder.embed_tokens(tokens), outputs


def assert_tables(adapter, base, model, changed_inputs, changed_outputs):
    prompts, answers, outputs = tables(model)
    table = base.model.lm_head.weight.detach()
    assert adapter.vocabulary == len(outputs)
    inputs = peft_adapters.replaced(table, adapter.input_rows, adapter.vocabulary)
    assert torch.equal(inputs, prompts)
    assert torch.equal(inputs, answers)
    assert torch.equal(peft_adapters.replaced(table, adapter.output_rows, adapter.vocabulary), outputs)
    for rows, ids in ((adapter.input_rows, changed_inputs), (adapter.output_rows, changed_outputs)):
        assert (rows.ids.tolist() if rows is not None else []) == ids


@pytest.mark.parametrize(
    ("options", "inputs", "outputs"),
    [
        ({"trainable_token_indices": [51288, 5, 7]}, [5, 7, 51288], [5, 7, 51288]),
        ({"trainable_token_indices": {"shared": [5], "lm_head": [5]}}, [5], [5]),
        ({"trainable_token_indices": {"lm_head": [9]}}, [], [9]),
        ({"modules_to_save": ["lm_head"]}, [], list(range(BASE))),
    ],
)
def test_changed_rows(base, tmp_path, options, inputs, outputs):
    model = peft_adapters.make_adapter(base.model, r=2, target_modules=["q_proj"], **options)
    folder = peft_adapters.save(model, tmp_path / "adapter")
    adapter = read(folder, base)
    assert_tables(adapter, base, peft_adapters.reload(base.model, folder), inputs, outputs)
    original = peft_adapters.to_original_layout(folder, tmp_path / "original")
    assert_tables(read(original, base), base, model, inputs, outputs)


@pytest.mark.parametrize("save_embedding_layers", [False, True])
def test_added_rows(base, tmp_path, save_embedding_layers):
    options = {"r": 2, "target_modules": ["q_proj"], "trainable_token_indices": [5, *ADDED]}
    model = peft_adapters.make_adapter(base.model, vocabulary=RESIZED, **options)
    folder = peft_adapters.save(model, tmp_path / "adapter", save_embedding_layers=save_embedding_layers)
    reloaded = peft_adapters.reload(base.model, folder, RESIZED)
    assert_tables(read(folder, base), base, reloaded, [5, *ADDED], [5, *ADDED])


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "lm_head"]])
def test_saved_embeddings_change_all_tied_tables(base, tmp_path, targets):
    model = peft_adapters.make_adapter(base.model, vocabulary=RESIZED, r=2, target_modules=targets)
    with torch.no_grad():
        model.base_model.model.get_input_embeddings().weight[[3, 51000]] += 1
    folder = peft_adapters.save(model, tmp_path / "adapter", save_embedding_layers=True)
    adapter = read(folder, base)
    reloaded = peft_adapters.reload(base.model, folder, RESIZED).unload()
    prompts = reloaded.get_input_embeddings().weight
    assert torch.equal(prompts, reloaded.lm_head.weight)
    assert adapter.input_rows.ids.tolist() == [3, 51000, *ADDED]
    table = peft_adapters.replaced(base.model.lm_head.weight.detach(), adapter.input_rows, RESIZED)
    assert torch.equal(table, prompts)
    assert adapter.output_rows is adapter.input_rows
    assert adapter.size_in_bytes == sum(
        tensor.nbytes for factors in adapter.factors.values() for tensor in (factors.down, factors.up)
    ) + 5 * (8 + 64 * 4)
    if "lm_head" in targets:
        assert adapter.factors["lm_head"].up.shape == (RESIZED, 2)


def test_rows_equal_to_the_base_are_left_out(base, tmp_path):
    model = peft_adapters.make_adapter(base.model, r=2, target_modules=["lm_head"])
    adapter = read(peft_adapters.save(model, tmp_path / "adapter", save_embedding_layers=True), base)
    assert adapter.input_rows is adapter.output_rows is None


def test_rows_are_compared_in_the_dtype_of_the_model(in_half_precision, base, tmp_path):
    model = peft_adapters.make_adapter(base.model, r=2, target_modules=["lm_head"])
    adapter = read(peft_adapters.save(model, tmp_path / "adapter", save_embedding_layers=True), in_half_precision)
    assert adapter.output_rows is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules_to_save": ["shared"]}, "prompts .* and those of answers .* differ"),
        ({"modules_to_save": ["embed_tokens", "lm_head"]}, "prompts .* and those of answers .* differ"),
        ({"trainable_token_indices": {"embed_tokens": [5]}}, "prompts .* and those of answers .* differ"),
        (
            {"modules_to_save": ["embed_tokens", "lm_head"], "vocabulary": RESIZED},
            r"shared: got no row of the added token 51289 \(3 missing\), expected .* from 51289 to 51291",
        ),
        (
            {"trainable_token_indices": [51289, 51291], "vocabulary": RESIZED},
            r"no row of the added token 51290 \(1 missing\)",
        ),
        ({"target_modules": ["shared"]}, "lora_embedding_A: factors of embeddings are not supported"),
    ],
)
def test_tables_that_cannot_be_served(base, tmp_path, options, message):
    model = peft_adapters.make_adapter(base.model, **{"r": 2, "target_modules": ["q_proj"], **options})
    with pytest.raises(AdapterError, match=message) as error:
        read(peft_adapters.save(model, tmp_path / "adapter"), base)
    assert "\n" not in str(error.value)


def widen(tensors):
    name = f"{EMBEDDINGS}.shared.weight"
    tensors[name] = torch.ones(BASE, 65)


def shorten(tensors):
    tensors[f"{EMBEDDINGS}.shared.weight"] = torch.ones(BASE - 1, 64)


def untie(tensors):
    tensors[f"{EMBEDDINGS}.shared.weight"] = torch.ones(BASE, 64)
    tensors["base_model.model.lm_head.weight"] = torch.zeros(BASE, 64)


def spoil(tensors):
    tensors[f"{EMBEDDINGS}.shared.weight"] = torch.full((BASE, 64), torch.inf)


def forget_ids(tensors):
    tensors["base_model.model.lm_head.token_adapter.trainable_tokens_delta"] = torch.zeros(1, 64)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (widen, r"shared.weight: got shape \(51289, 65\), expected \(at least 51289, 64\)"),
        (shorten, r"shared.weight: got shape \(51288, 64\), expected \(at least 51289, 64\)"),
        (untie, "got other rows than .*, expected the same: .* is tied"),
        (spoil, "shared.weight: got NaN or infinity"),
        (forget_ids, "got rows, expected lm_head in trainable_token_indices"),
    ],
)
def test_damaged_tables(base, folder, damage, message):
    weights = load_file(folder / peft_adapters.WEIGHTS)
    damage(weights)
    save_file(weights, folder / peft_adapters.WEIGHTS)
    with pytest.raises(AdapterError, match=message) as error:
        read(folder, base)
    assert "\n" not in str(error.value)
