"""Adapters that cannot be served, and files that may be damaged or hostile: a one-line error, and no code is run."""

import json
import os
import time
import zipfile

import pytest
import torch
from florence2_server.engine.adapters.adapter_files import read_adapter
from florence2_server.engine.checkpoint.weights import read_tensors_copied
from florence2_server.engine.errors import AdapterError
from safetensors.torch import load_file, save_file

from tests.engine.adapters import peft_adapters
from tests.engine.checkpoint.folders import read_json

LAYER = "base_model.model.language_model.model.decoder.layers.0.self_attn.q_proj"
DEPTHWISE = "base_model.model.vision_tower.blocks.0.0.spatial_block.conv1.fn.dw"


def assert_rejected(folder, base, message, **options):
    with pytest.raises(AdapterError, match=message) as error:
        read_adapter(folder, base, **{"max_rank": 64, **options})
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type: got 'LOHA', expected 'LORA'"),
        ({"peft_type": None}, "peft_type: got None, expected 'LORA'"),
        ({"r": 0}, "r: got 0, expected a positive integer"),
        ({"r": True}, "r: got True, expected a positive integer"),
        ({"r": "8"}, "r: got '8', expected a positive integer"),
        ({"r": 8}, r"lora_A.weight: got shape \(4, 64\), expected \(8, 64\)"),
        ({"lora_alpha": "16"}, "lora_alpha: got '16', expected a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha: got nan, expected a number"),
        ({"lora_alpha": float("inf")}, "lora_alpha: got inf, expected a number"),
        ({"lora_alpha": 1e300}, r"lora_alpha: got 1e\+300, expected a number"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern: .*, expected an object of values by pattern"),
        ({"rank_pattern": {"q_proj": -1}}, r"rank_pattern\['q_proj'\]: got -1, expected a positive integer"),
        ({"rank_pattern": {"(": 4}}, r"rank_pattern: got '\(', expected a regular expression"),
        ({"alpha_pattern": {"(.+)+": 4}}, "expected a simple pattern"),
        ({"alpha_pattern": {".*.*.*x": 4}}, "expected a simple pattern"),
        ({"alpha_pattern": {"q_proj": None}}, r"alpha_pattern\['q_proj'\]: got None, expected a number"),
        ({"bias": "all"}, "bias: got 'all', expected 'none'"),
        ({"bias": "lora_only"}, "bias: got 'lora_only', expected 'none'"),
        ({"lora_bias": True}, "lora_bias: got True, expected none: biases are not supported"),
        ({"use_dora": True}, "use_dora: got True, expected none"),
        ({"layer_replication": [[0, 2]]}, "layer_replication: .*, expected none: added layers"),
        ({"target_parameters": ["image_projection"]}, "target_parameters: .*, expected none: only layers"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: got 'pissa', expected one of True, .*'eva'"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights: got 'loftq'"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save: got 'classifier', expected one of shared,"),
        ({"modules_to_save": "lm_head"}, "modules_to_save: got 'lm_head', expected a list of modules"),
        ({"trainable_token_indices": {"conv": [1]}}, "trainable_token_indices: got 'conv', expected one of"),
        ({"trainable_token_indices": [1, 1]}, r"trainable_token_indices: got \[1, 1\], expected each token once"),
        ({"trainable_token_indices": [-1]}, r"got \[-1\], expected a list of token ids"),
        ({"trainable_token_indices": 7}, "trainable_token_indices: got 7, expected a list of tokens"),
        (
            {"trainable_token_indices": {"lm_head": [1]}, "modules_to_save": ["lm_head"]},
            r"trainable_token_indices: got {'lm_head': \[1\]}, expected none besides modules_to_save",
        ),
        ({"use_qalora": True}, "use_qalora: got True, expected none: an unknown option may change answers"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config: .*, expected none"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens: .*, expected none"),
        ({"from_the_future": "x" * 1000}, r"from_the_future: got 'x{79}\.\.\., expected none"),
    ],
)
def test_configs(base, folder, changes, message):
    peft_adapters.change(folder, **changes)
    assert_rejected(folder, base, message)


@pytest.mark.parametrize(
    "changes",
    [
        {"from_the_future": None},
        {"from_the_future": False},
        {"megatron_config": {}},
        {"base_model_name_or_path": "else/where", "task_type": "SEQ_2_SEQ_LM"},
        {"velora_config": {"rank": 4}},
        {"fan_in_fan_out": True},
    ],
)
def test_options_without_effect_are_ignored(base, folder, changes):
    peft_adapters.change(folder, **changes)
    assert read_adapter(folder, base, max_rank=4).tensors.rank == 4


def test_the_rank_is_limited(base, folder):
    assert_rejected(folder, base, r"q_proj: got rank 4, expected at most 3", max_rank=3)


def rename(old, new):
    def damage(weights):
        for name in [name for name in weights if old in name]:
            weights[name.replace(old, new)] = weights.pop(name)

    return damage


def put(name, *shape, value=1.0, dtype=torch.float32):
    return lambda weights: weights.update({name: torch.full(shape, value, dtype=dtype)})


def drop(name):
    return lambda weights: weights.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop(f"{LAYER}.lora_A.weight"), r"q_proj.lora_B.weight: got no lora_A for .*, expected both factors"),
        (drop(f"{LAYER}.lora_B.weight"), r"q_proj.lora_A.weight: got no lora_B for .*, expected both factors"),
        (rename("layers.1", "layers.7"), "a target that the model does not have, language_model.model.*layers.7"),
        (rename("base_model.model.", ""), "got a name without base_model.model., expected the names that peft's"),
        (rename("self_attn.q_proj", "self_attn_layer_norm"), "a target of type LayerNorm, expected a linear layer"),
        (rename("lora_A", "lora_C"), "got a tensor of another kind, expected low-rank factors"),
        (put(f"{LAYER}.lora_A.weight", 4, 32), r"lora_A.weight: got shape \(4, 32\), expected \(4, 64\)"),
        (put(f"{LAYER}.lora_B.weight", 64, 5), r"lora_B.weight: got shape \(64, 5\), expected \(64, 4\)"),
        (put(f"{LAYER}.lora_A.weight", 4), r"lora_A.weight: got shape \(4,\), expected \(4, 64\)"),
        (put(f"{LAYER}.lora_A.weight", 4, 64, value=torch.nan), "lora_A.weight: got NaN or infinity"),
        (put(f"{LAYER}.lora_B.weight", 64, 4, value=-torch.inf), "lora_B.weight: got NaN or infinity"),
        (put(f"{LAYER}.lora_B.weight", 64, 4, value=3e38), "lora_B.weight: got values beyond the range of float32"),
        (put(f"{LAYER}.lora_B.weight", 64, 4, value=1, dtype=torch.int32), "got int32, expected floating-point"),
        (put(f"{LAYER}.lora_A.default.weight", 4, 64), "got the same tensor as .*, expected one of them"),
        (put(f"{LAYER}.lora_magnitude_vector", 64), "DoRA is not supported"),
        (put(f"{LAYER}.lora_B.bias", 64), "biases are not supported"),
        (put(f"{LAYER}.weight", 64, 64), "got a tensor of another kind"),
        (put("base_model.model.classifier.weight", 2, 64), "got a tensor of another kind"),
        (lambda weights: weights.clear(), "the weights have no tensors"),
    ],
)
def test_tensors(base, folder, damage, message):
    weights = load_file(folder / peft_adapters.WEIGHTS)
    damage(weights)
    save_file(weights, folder / peft_adapters.WEIGHTS)
    assert_rejected(folder, base, message)


def test_depthwise_convolutions(base, folder):
    down, up = torch.ones(16, 16, 3, 3), torch.ones(16, 1, 1, 1)
    save_file({f"{DEPTHWISE}.lora_A.weight": down, f"{DEPTHWISE}.lora_B.weight": up}, folder / peft_adapters.WEIGHTS)
    peft_adapters.change(folder, r=16)
    assert_rejected(folder, base, "a depthwise convolution as target, which is not supported")


class _Runs:
    """Creates a file when it is unpickled without restrictions."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_pickle_is_not_run(base, folder, tmp_path):
    (folder / peft_adapters.WEIGHTS).unlink()
    torch.save({f"{LAYER}.lora_A.weight": _Runs(tmp_path / "ran")}, folder / "adapter_model.bin")
    assert_rejected(folder, base, r"adapter_model.bin needs \w+\.open, but only tensors are loaded")
    assert not (tmp_path / "ran").exists()


def test_bin_weights_are_rejected_if_only_safetensors_are_allowed(base, folder):
    torch.save(load_file(folder / peft_adapters.WEIGHTS), folder / "adapter_model.bin")
    read_adapter(folder, base, max_rank=4, safetensors_only=True)
    (folder / peft_adapters.WEIGHTS).unlink()
    message = r"only \.bin weights, which FLORENCE2_SAFETENSORS_ONLY rejects"
    assert_rejected(folder, base, message, safetensors_only=True)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (peft_adapters.WEIGHTS, truncate, "cannot be read: SafetensorError"),
        (peft_adapters.WEIGHTS, lambda path: path.write_bytes(b""), "cannot be read: SafetensorError"),
        (
            peft_adapters.WEIGHTS,
            lambda path: path.unlink(),
            r"adapter_model.safetensors or adapter_model.bin is missing",
        ),
        ("adapter_config.json", truncate, "adapter_config.json is not JSON"),
        ("adapter_config.json", lambda path: path.write_text("[]"), "adapter_config.json is not a JSON object"),
        ("adapter_config.json", lambda path: path.unlink(), "adapter_config.json is missing"),
        ("tokenizer.json", lambda path: path.write_text("{}"), "cannot be read: "),
    ],
)
def test_damaged_files(base, folder, name, damage, message):
    damage(folder / name)
    assert_rejected(folder, base, message)


def test_no_folder(base, tmp_path):
    assert_rejected(tmp_path / "nowhere", base, "adapter_config.json is missing")


def sparse(size):
    """A file of a size that takes no room on the disk."""

    def grow(path):
        with path.open("ab") as file:
            file.truncate(size)

    return grow


@pytest.mark.parametrize("name", [peft_adapters.WEIGHTS, "adapter_model.bin", "adapter_config.json", "tokenizer.json"])
def test_files_that_are_too_large_are_not_read(base, folder, name):
    if name == "adapter_model.bin":
        (folder / peft_adapters.WEIGHTS).unlink()
    sparse(50 * 2**30)(folder / name)
    assert_rejected(folder, base, rf"{name}: got 53687091200 bytes, expected at most \d+$")


def test_a_small_pickle_of_large_tensors_is_not_unpacked(base, folder, tmp_path):
    (folder / peft_adapters.WEIGHTS).unlink()
    path, plain = folder / "adapter_model.bin", tmp_path / "plain.bin"
    torch.save({f"{LAYER}.lora_A.weight": torch.zeros(2**26)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in source.infolist():
            packed.writestr(member.filename, source.read(member))
    plain.unlink()
    assert path.stat().st_size < 2**20
    assert_rejected(folder, base, r"adapter_model.bin: got 268\d{6} bytes, expected at most")


def test_a_pickle_of_tensors_that_repeat_a_number_is_not_spread_out(base, folder):
    (folder / peft_adapters.WEIGHTS).unlink()
    torch.save({f"{LAYER}.lora_A.weight": torch.zeros(1).expand(2**20, 2**20)}, folder / "adapter_model.bin")
    assert_rejected(folder, base, "adapter_model.bin: got 4398046511104 bytes, expected at most")


def test_weights_that_are_truncated_after_they_were_read_end_no_process(folder):
    path = folder / peft_adapters.WEIGHTS
    tensors = read_tensors_copied(path, 2**20)
    with path.open("wb"):
        pass
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_that_are_no_file(base, folder):
    (folder / peft_adapters.WEIGHTS).unlink()
    os.mkfifo(folder / peft_adapters.WEIGHTS)
    (folder / "tokenizer_config.json").symlink_to("/dev/zero")
    os.mkfifo(folder / "tokenizer.json")
    (folder / "loop.json").symlink_to("loop.json")
    assert_rejected(folder, base, "adapter_model.safetensors or adapter_model.bin is missing")


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_patterns_take_no_time(base, folder, field):
    """Each of them is matched with each module."""
    peft_adapters.change(folder, **{field: {f"q_pro{number}": 4 for number in range(2001)}})
    assert_rejected(folder, base, f"{field}: got '2001 patterns', expected at most 2000")
    peft_adapters.change(folder, **{field: {"q_proj" * 200: 4}})
    assert_rejected(folder, base, f"{field}: got 'q_proj.*, expected at most 1000 characters")
    peft_adapters.change(folder, **{field: {f"q_pro{number}": 4 for number in range(2000)}})
    begin = time.monotonic()
    read_adapter(folder, base, max_rank=4)
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("alpha", [0, -16, 1e-30])
def test_any_finite_alpha_is_served(base, folder, alpha):
    peft_adapters.change(folder, lora_alpha=alpha)
    for factors in read_adapter(folder, base, max_rank=4).tensors.factors.values():
        assert factors.up.isfinite().all()
        assert (factors.up == 0).all() == (alpha == 0)


@pytest.mark.parametrize(
    "content", ['{"r": ' + "9" * 5000 + "}", '{"r": ' + "[" * 100_000 + "}", '{"a": 1, "a": NaN}', "\0", "\ufeff{}"]
)
def test_odd_json(base, folder, content):
    (folder / "adapter_config.json").write_text(content)
    assert_rejected(folder, base, "adapter_config.json|cannot be read")


def test_a_name_that_both_layouts_give_to_a_layer_is_rejected(base, folder, tmp_path):
    model = peft_adapters.make_adapter(base.model, r=4, target_modules=["q_proj"])
    native = load_file(peft_adapters.save(model, tmp_path / "native") / peft_adapters.WEIGHTS)
    save_file({**load_file(folder / peft_adapters.WEIGHTS), **native}, folder / peft_adapters.WEIGHTS)
    assert_rejected(folder, base, "got the same tensor as .*, expected one of them")


def test_a_tokenizer_with_which_its_library_panics(base, folder, tiny):
    tokenizer = read_json(tiny / "tokenizer.json")
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert_rejected(folder, base, "tokenizer: it cannot be read: Precompiled")
