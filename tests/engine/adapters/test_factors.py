"""Low-rank factors: of the adapters that the original code trained, and of all kinds that peft makes."""

import dataclasses
import shutil

import pytest
import torch
from florence2 import expand_prompt
from florence2_server.engine.adapters.adapter_files import read_adapter
from safetensors.torch import load_file, save_file

from tests.conftest import DEMO_CHECKPOINT
from tests.engine.adapters import peft_adapters
from tests.engine.checkpoint.folders import load_folder, read_json
from tests.original_layout import generated

ATTENTION = ["q_proj", "v_proj"]
LAYERS = r".*\.layers\.1\.self_attn.*"
KINDS = {
    "attention": {"r": 4, "lora_alpha": 16, "target_modules": ATTENTION},
    "rank-stabilized": {"r": 3, "lora_alpha": 5, "target_modules": ["fc1", "fc2", "qkv"], "use_rslora": True},
    "patterns": {
        "target_modules": ["k_proj", "fc1", "fc2"],
        "rank_pattern": {"fc1": 2, "decoder.layers.0.self_attn.k_proj": 5, LAYERS: 3},
        "alpha_pattern": {r"^model\.language_model.*": 7, "fc2": 1.5},
    },
    "patterns, rank-stabilized": {
        "target_modules": ["out_proj", "proj"],
        "use_rslora": True,
        "rank_pattern": {"proj": 2},
        "alpha_pattern": {"out_proj": 3},
    },
    "convolutions": {"r": 6, "target_modules": ["conv"]},
    "output layer": {"r": 2, "target_modules": ["lm_head"]},
    "all linear": {"r": 2, "target_modules": "all-linear", "init_lora_weights": "gaussian"},
    "some layers": {"target_modules": ["fc2"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "all but some": {"target_modules": ["q_proj"], "exclude_modules": r".*decoder.*", "fan_in_fan_out": True},
}


def read(folder, checkpoint, **options):
    return read_adapter(folder, checkpoint, **{"max_rank": 64, **options}).tensors


def assert_equal(one, other):
    assert list(one.factors) == list(other.factors)
    for name, factors in one.factors.items():
        assert torch.equal(factors.down, other.factors[name].down), name
        assert torch.equal(factors.up, other.factors[name].up), name
    for rows, others in ((one.input_rows, other.input_rows), (one.output_rows, other.output_rows)):
        assert (rows is None) == (others is None)
        assert rows is None or (torch.equal(rows.ids, others.ids) and torch.equal(rows.rows, others.rows))
    assert one.vocabulary == other.vocabulary


@pytest.mark.parametrize("kind", KINDS)
def test_the_product_is_what_peft_adds_to_the_weight(base, tmp_path, kind):
    model = peft_adapters.make_adapter(base.model, **KINDS[kind])
    adapter = read(peft_adapters.save(model, tmp_path / "adapter"), base)
    layers = {
        name.removeprefix(peft_adapters.PREFIX): module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert adapter.factors.keys() == layers.keys()
    for name, layer in layers.items():
        factors, expected = adapter.factors[name], layer.get_delta_weight("default").detach()
        product = (factors.up @ factors.down.flatten(1)).view(expected.shape)
        torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-6)
    assert adapter.rank == max(layer.r["default"] for layer in layers.values())
    assert adapter.input_rows is adapter.output_rows is None
    assert adapter.vocabulary == 51289


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "all linear"])
def test_the_layout_makes_no_difference(base, tmp_path, kind):
    options = dict(KINDS[kind])
    model = peft_adapters.make_adapter(base.model, **options)
    native = peft_adapters.save(model, tmp_path / "native")
    original = peft_adapters.to_original_layout(native, tmp_path / "original")
    if "alpha_pattern" in options:  # they are matched with the names of the adapter's layout
        alphas = {
            each.replace(r"model\.language", "language"): alpha for each, alpha in options["alpha_pattern"].items()
        }
        peft_adapters.change(original, alpha_pattern=alphas)
    assert_equal(read(original, base), read(native, base))


def test_adapters_for_a_base_in_the_native_layout(reference, tmp_path):
    model = peft_adapters.make_adapter(reference.model, r=2, target_modules="all-linear")
    adapter = read(peft_adapters.save(model, tmp_path / "adapter"), load_folder(DEMO_CHECKPOINT))
    assert "model.multi_modal_projector.image_projection" in adapter.factors
    assert adapter.changes_images
    assert adapter.vocabulary == reference.model.config.text_config.vocab_size


@pytest.mark.parametrize(
    ("name", "rank", "changes_images"), [("adapter_small", 4, False), ("adapter_notebook", 8, True)]
)
def test_answers_are_those_of_the_original_code(base, tiny, name, rank, changes_images):
    adapter = read(tiny / name, base)
    assert (adapter.rank, adapter.changes_images) == (rank, changes_images)
    merged = peft_adapters.merge(base.model, adapter)
    expected = read_json(tiny / name / "expected.json")
    for each in expected[:: len(expected) // 5]:
        options = {"generation_config": base.generation_config, "num_beams": each["num_beams"], "max_new_tokens": 50}
        prompt = expand_prompt(each["prompt"])
        tokens = generated(merged, tiny, base.tokenizer, tiny / each["image"], prompt, **options)
        assert tokens == each["token_ids"], each["prompt"]


def test_size_is_that_of_all_tensors(base, tiny):
    adapter = read(tiny / "adapter_small", base)
    assert adapter.size_in_bytes == 12 * (4 * 64 + 64 * 4) * 4


def test_tensors_have_the_dtype_of_the_model(base, in_half_precision, tiny):
    half = read(tiny / "adapter_small", in_half_precision)
    for name, factors in read(tiny / "adapter_small", base).factors.items():
        assert half.factors[name].down.dtype == half.factors[name].up.dtype == torch.bfloat16
        # The scaling is applied before rounding.
        assert torch.equal(half.factors[name].up, factors.up.bfloat16())


def test_an_adapter_in_half_precision_is_scaled_in_single_precision(base, folder):
    weights = {name: tensor.half() for name, tensor in load_file(folder / peft_adapters.WEIGHTS).items()}
    save_file(weights, folder / peft_adapters.WEIGHTS)
    peft_adapters.change(folder, lora_alpha=1.7)
    for name, factors in read(folder, base).factors.items():
        original = name.replace("model.language_model.", "language_model.model.", 1)
        saved = weights[f"base_model.model.{original}.lora_B.weight"]
        assert torch.equal(factors.up, saved.float() * (1.7 / 4))


def test_files_may_contain_the_name_of_the_adapter(base, folder, tiny):
    weights = load_file(folder / peft_adapters.WEIGHTS)
    save_file(
        {name.replace(".weight", ".default.weight"): tensor for name, tensor in weights.items()},
        folder / peft_adapters.WEIGHTS,
    )
    assert_equal(read(folder, base), read(tiny / "adapter_small", base))


def test_bin_files_are_read(base, tiny, folder):
    weights = load_file(folder / peft_adapters.WEIGHTS)
    (folder / peft_adapters.WEIGHTS).unlink()
    torch.save(weights, folder / "adapter_model.bin")
    assert_equal(read(folder, base), read(tiny / "adapter_small", base))


def test_tensors_outlive_the_files(base, tiny, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(tiny / "adapter_small", folder)
    adapter = read(folder, base)
    size = (folder / peft_adapters.WEIGHTS).stat().st_size
    with (folder / peft_adapters.WEIGHTS).open("r+b") as file:
        file.write(bytes(size))
    assert_equal(adapter, read(tiny / "adapter_small", base))


def test_a_base_with_another_output_layer_is_no_obstacle(base, tiny):
    model = peft_adapters.merge(base.model, read(tiny / "adapter_notebook", base))
    assert_equal(
        read(tiny / "adapter_notebook", dataclasses.replace(base, model=model)), read(tiny / "adapter_notebook", base)
    )
