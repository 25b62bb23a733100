import json
import shutil

import pytest
import torch
from florence2_server.engine.checkpoint.loading import Layout
from florence2_server.engine.errors import CheckpointError
from safetensors.torch import load_file, save_file

from tests.engine.checkpoint.folders import edit_json, load_folder


def test_generation_defaults_come_from_the_checkpoints_generation_config(random_checkpoint):
    checkpoint = load_folder(random_checkpoint)
    defaults = checkpoint.generation
    assert (defaults.no_repeat_ngram_size, defaults.forced_bos_token_id, defaults.forced_eos_token_id) == (
        3,
        0,
        2,
    )
    assert defaults.max_new_tokens == defaults.positions.value == 1024
    assert checkpoint.prompt_limit.value == 1024 - 17
    assert checkpoint.model.dtype is torch.float32


def test_half_precision_weights_are_converted_to_float32_on_a_cpu(copy):
    weights = load_file(copy / "model.safetensors")
    save_file(
        {name: tensor.half() for name, tensor in weights.items()},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    assert load_folder(copy).model.dtype is torch.float32


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def truncate_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def drop_a_layer(folder):
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.language_model.decoder.layers.1.fc1.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def break_config(folder):
    (folder / "config.json").write_text("{")


def remove_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def edit_image_processor(**changes):
    def damage(folder):
        path = folder / "processor_config.json"
        edit_json(path, image_processor={**json.loads(path.read_text())["image_processor"], **changes})

    return damage


def remove_location_tokens(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != "<loc_7>"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_weights, "safetensors"),
        (truncate_weights, "cannot be loaded"),
        (drop_a_layer, "decoder.layers.1.fc1.weight"),
        (break_config, "config.json is not JSON"),
        (remove_tokenizer, "tokenizer.json"),
        (edit_image_processor(image_seq_length=577), "image_seq_length: got 577, but the vision tower makes 17 tokens"),
        (edit_image_processor(size={"height": 128, "width": 128}), "image_seq_length: got 17, .* makes 65 tokens"),
        (
            edit_image_processor(size={"shortest_edge": 64}),
            "size: got {'shortest_edge': 64}, expected height and width",
        ),
        (remove_location_tokens, "no token <loc_7>"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_damaged_checkpoint_is_rejected_in_one_line(copy, damage, message):
    damage(copy)
    with pytest.raises(CheckpointError, match=message) as error:
        load_folder(copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_special_token_ids_are_repaired_and_logged(copy, caplog):
    edit_json(
        copy / "generation_config.json",
        bos_token_id=2,
        eos_token_id=1,
        pad_token_id=0,
        forced_bos_token_id=2,
        forced_eos_token_id=1,
        decoder_start_token_id=1,
    )
    defaults = load_folder(copy).generation
    assert (defaults.bos_token_id, defaults.eos_token_id, defaults.decoder_start_token_id) == (0, 2, 2)
    assert (defaults.forced_bos_token_id, defaults.forced_eos_token_id) == (0, 2)
    assert "eos_token_id is 1, repaired to 2" in caplog.text


def test_code_in_a_checkpoint_is_not_run(copy):
    edit_json(copy / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    (copy / "modeling_evil.py").write_text("raise SystemExit('the checkpoint ran its code')")
    load_folder(copy)


def test_bin_weights_of_the_native_layout_load(copy, caplog):
    weights = load_file(copy / "model.safetensors")
    torch.save(weights, copy / "pytorch_model.bin")
    remove_weights(copy)
    checkpoint = load_folder(copy)
    assert "has .bin weights" in caplog.text
    assert checkpoint.layout is Layout.NATIVE
    found = checkpoint.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_the_vocabulary_size_is_that_of_the_weights_if_the_config_differs(copy):
    weights = load_file(copy / "model.safetensors")
    shared = "model.language_model.shared.weight"
    weights[shared] = torch.cat([weights[shared], weights[shared][:2]])
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert load_folder(copy).model.get_input_embeddings().weight.shape[0] == 51330
